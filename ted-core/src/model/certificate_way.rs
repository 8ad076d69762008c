//! The way on which a Distributor's certificate is brought to one Subscriber.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What may stand in a command in place of a value.
const PLACEHOLDERS: [&str; 3] = ["{cer}", "{name}", "{address}"];

/// How a Distributor's certificate comes to a Subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateWay {
    /// Copied into this directory, which the Distributor's machine reaches: the Subscriber's `security/`.
    Directory(String),
    /// Brought by this command.
    Command(CommandTemplate),
}

impl CertificateWay {
    /// A directory.
    ///
    /// # Errors
    /// In words, when it is not absolute.
    pub fn directory(path: &str) -> Result<Self, String> {
        if path.starts_with('/') && !path.contains('\0') {
            Ok(Self::Directory(path.to_owned()))
        } else {
            Err("is not an absolute path".to_owned())
        }
    }

    /// A command.
    ///
    /// # Errors
    /// In words, as [`CommandTemplate::parse`].
    pub fn command(text: &str) -> Result<Self, String> {
        CommandTemplate::parse(text).map(Self::Command)
    }
}

impl fmt::Display for CertificateWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "directory {path}"),
            Self::Command(template) => write!(f, "command {}", template.text()),
        }
    }
}

/// A command's words, with places for values. It is split here and never given to a shell, so that no value becomes
/// anything but a part of one word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommandTemplate {
    text: String,
    words: Vec<String>,
}

/// The values for a [`CommandTemplate`].
#[derive(Debug, Clone, Copy)]
pub struct CommandValues<'a> {
    /// The certificate's file.
    pub cer: &'a str,
    /// The Subscriber's node name.
    pub name: &'a str,
    /// The host at which the Subscriber is dialled, or its name where it is not.
    pub address: &'a str,
}

impl CommandTemplate {
    /// Reads a command: words between blanks, where `'…'` and `"…"` hold blanks together. `{cer}` stands for the
    /// certificate's file and has to be there; `{name}` and `{address}` may.
    ///
    /// # Errors
    /// In words that follow the name of what was read.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words = split(text)?;
        let program = words.first().ok_or("is empty")?;
        if program.contains('{') {
            return Err("begins with a placeholder, where the program's name stands".to_owned());
        }
        for word in &words {
            let mut rest = word.clone();
            for placeholder in PLACEHOLDERS {
                rest = rest.replace(placeholder, "");
            }
            if rest.contains(['{', '}']) {
                return Err(format!("holds `{word}`; there are only {{cer}}, {{name}} and {{address}}"));
            }
        }
        if !words.iter().any(|word| word.contains("{cer}")) {
            return Err("does not hold {cer}, where the certificate's file stands".to_owned());
        }
        Ok(Self { text: text.to_owned(), words })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The program and its arguments, with these values.
    #[must_use]
    pub fn fill(&self, values: &CommandValues<'_>) -> Vec<String> {
        self.words.iter().map(|word| fill_word(word, values)).collect()
    }
}

impl TryFrom<String> for CommandTemplate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|reason| format!("the command `{text}` {reason}"))
    }
}

impl From<CommandTemplate> for String {
    fn from(template: CommandTemplate) -> Self {
        template.text
    }
}

/// One pass from left to right, so that a placeholder in a value stays what it is.
fn fill_word(word: &str, values: &CommandValues<'_>) -> String {
    let mut filled = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find('{') {
        filled.push_str(&rest[..at]);
        let (value, length) = match &rest[at..] {
            found if found.starts_with("{cer}") => (values.cer, "{cer}".len()),
            found if found.starts_with("{name}") => (values.name, "{name}".len()),
            _ => (values.address, "{address}".len()),
        };
        filled.push_str(value);
        rest = &rest[at + length..];
    }
    filled.push_str(rest);
    filled
}

fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in text.chars() {
        match (quote, letter) {
            (_, '\0') => return Err("holds a zero byte".to_owned()),
            (Some(open), _) if letter == open => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(letter),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err("has a quotation mark that is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_without_a_shell_and_values_stay_within_their_word() {
        let values = CommandValues { cer: "/d/a b.cer", name: "s1; rm -rf /", address: "{name}" };
        for (text, expected) in [
            ("scp {cer} root@{address}:/x/", &["scp", "/d/a b.cer", "root@{name}:/x/"][..]),
            ("  put '{cer} {name}' \"a 'b'\" '' $HOME", &["put", "/d/a b.cer s1; rm -rf /", "a 'b'", "", "$HOME"]),
            ("put -f={cer}{cer}.", &["put", "-f=/d/a b.cer/d/a b.cer."]),
        ] {
            let template = CommandTemplate::parse(text).unwrap();
            assert_eq!(template.fill(&values), expected);
            assert_eq!(template.text(), text);
        }
    }

    #[test]
    fn commands_that_cannot_work_are_refused_with_a_reason() {
        for (text, reason) in [
            ("", "is empty"),
            ("{cer}", "begins with a placeholder"),
            ("a{cer} {cer}", "begins with a placeholder"),
            ("scp x root@{address}:", "does not hold {cer}"),
            ("scp {cer} {host}", "holds `{host}`"),
            ("scp '{cer} x", "not closed"),
            ("scp {cer} }", "holds `}`"),
        ] {
            assert!(CommandTemplate::parse(text).unwrap_err().contains(reason), "{text}");
        }
        assert!(CertificateWay::directory("mnt/x").is_err());
        assert!(CertificateWay::directory("/mnt/x").is_ok());
    }
}
