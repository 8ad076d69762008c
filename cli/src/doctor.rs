//! What `doctor` found, the same for both binaries.

use serde::{Deserialize, Serialize};

use crate::error::{ApiError, code};
use crate::output::{Render, Text, clean};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Good,
    /// It works, but somebody should look.
    Warning,
    /// It does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it came out.
    pub health: Health,
    /// What was found.
    pub found: String,
    /// What mends it, where something is to be mended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// All checks in the order they were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The checks.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// Fine unless a check is [`Health::Bad`].
    ///
    /// # Errors
    /// [`code::DOCTOR`] with the number of such checks.
    pub fn verdict(&self) -> Result<(), ApiError> {
        match self.checks.iter().filter(|check| check.health == Health::Bad).count() {
            0 => Ok(()),
            bad => Err(ApiError::new(code::DOCTOR, format!("{bad} of {} checks failed", self.checks.len()))),
        }
    }
}

impl Render for Diagnosis {
    fn render(&self, out: &mut Text) {
        let paint = out.paint();
        for check in &self.checks {
            let health = match check.health {
                Health::Good => paint.good("good   "),
                Health::Warning => paint.warn("warning"),
                Health::Bad => paint.bad("bad    "),
            };
            out.painted(&format!("{health}  {}: {}", clean(&check.name), clean(&check.found)));
            if let Some(remedy) = &check.remedy {
                out.line(format!("         remedy: {remedy}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Paint;

    #[test]
    fn one_bad_check_makes_the_command_fail() {
        let check = |health, remedy: Option<&str>| Check {
            name: "clock".to_owned(),
            health,
            found: "it differs".to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        let well = Diagnosis { checks: vec![check(Health::Good, None), check(Health::Warning, None)] };
        assert_eq!(well.verdict(), Ok(()));
        let ill = Diagnosis { checks: vec![check(Health::Bad, Some("set it"))] };
        assert_eq!(ill.verdict().expect_err("bad").code, code::DOCTOR);
        let mut text = Text::new(Paint::Plain);
        ill.render(&mut text);
        assert_eq!(text.into_string(), "bad      clock: it differs\n         remedy: set it\n");
    }
}
