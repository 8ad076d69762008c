//! Names of users and groups on this machine: the one place that asks the C library for them.

use nix::unistd::{Gid, Group, Uid, User};

/// The name of the user with this number, if there is one.
pub(crate) fn user_name(number: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(number)).ok().flatten().map(|user| user.name)
}

/// The name of the group with this number, if there is one.
pub(crate) fn group_name(number: u32) -> Option<String> {
    Group::from_gid(Gid::from_raw(number)).ok().flatten().map(|group| group.name)
}

/// The number of the user with this name, if there is one.
pub(crate) fn user_number(name: &str) -> Option<u32> {
    User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
}

/// The number of the group with this name, if there is one.
pub(crate) fn group_number(name: &str) -> Option<u32> {
    Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_superuser_is_known_by_name_and_number_and_nobody_else_by_a_name_that_is_none() {
        assert_eq!((user_name(0).as_deref(), user_number("root")), (Some("root"), Some(0)));
        assert_eq!(
            (group_name(0).and_then(|name| group_number(&name)), group_number("no such group")),
            (Some(0), None)
        );
        assert_eq!((user_name(u32::MAX - 7), user_number("a\0b")), (None, None));
    }
}
