//! Names are labels: a Subscriber is known by its registered key, and renaming it changes nothing but the label. Only
//! its encryption certificate speaks of its name, and is issued anew when the node asks under the new one.

use crate::distributor::state::{State, lock};
use crate::error::Error;
use crate::id::KeyHash;
use crate::name::NodeName;
use crate::store::Registration;

impl State {
    /// Gives a Subscriber another name; its Channels, endpoints and registered key stay.
    pub(super) fn rename_subscriber(&self, name: &NodeName, to: &NodeName) -> Result<(), Error> {
        if name == to {
            lock(&self.fleet).subscriber(name)?;
            return Ok(());
        }
        let key = self.key_of_name(name);
        self.change_fleet(|fleet| Ok(fleet.rename_subscriber(name, to)?))?;
        if let Some((key, registration)) = key.and_then(|key| Some((key, self.registrations.get(&key)?))) {
            self.registrations.register(Registration { name: to.clone(), ..registration })?;
            self.tiers_changed();
            tracing::info!(from = %name, %to, fingerprint = key.fingerprint(), "a Subscriber has another name");
        }
        Ok(())
    }

    /// Makes the fleet call the node with this key `to`, where it has it under another name and nobody has that one.
    pub(super) fn follow_name(&self, key: &KeyHash, to: &NodeName) -> Result<(), Error> {
        let Some(registration) = self.registrations.get(key).filter(|known| known.name != *to) else { return Ok(()) };
        let (has_old, has_new) = {
            let fleet = lock(&self.fleet);
            (fleet.subscriber(&registration.name).is_ok(), fleet.subscriber(to).is_ok())
        };
        if has_old && !has_new { self.rename_subscriber(&registration.name, to) } else { Ok(()) }
    }
}
