//! What is set at this node, and by whom.

use serde::{Deserialize, Serialize};
use ted_cli::output::{Column, Render, Text, list};
use ted_core::DistributionRef;
use ted_core::subscriber::{NodeSettings, SettingSource};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ConfigurationShow {}

ted_cli::operations! {
    ConfigurationShow => "configuration/show" -> ConfigurationView,
}

/// The settings in force, each with who says so.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ConfigurationView {
    #[serde(flatten)]
    pub(crate) told: NodeSettings,
    /// How it extracts, and what it keeps.
    #[serde(default)]
    pub(crate) extraction: Vec<ExtractionSetting>,
}

/// Something that only this node's own configuration or a Distribution says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExtractionSetting {
    /// Its key in the configuration, or `mode`.
    pub(crate) setting: String,
    /// Of which Distribution; none for what counts for all.
    pub(crate) distribution: Option<DistributionRef>,
    pub(crate) value: String,
    pub(crate) source: ExtractionSource,
}

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ExtractionSource {
    /// Nobody: it is as it is without a word.
    Default,
    /// This node's own configuration.
    Own,
    /// The Distribution.
    Distribution,
}

/// The word by which a choice goes in the configuration.
pub(crate) fn word(choice: impl Serialize) -> String {
    match serde_json::to_value(choice) {
        Ok(serde_json::Value::String(word)) => word,
        other => other.map(|value| value.to_string()).unwrap_or_default(),
    }
}

impl ExtractionSetting {
    fn row(&self) -> Vec<String> {
        let setting = match &self.distribution {
            Some(distribution) => format!("{} of {distribution}", self.setting),
            None => self.setting.clone(),
        };
        let from = match self.source {
            ExtractionSource::Default => "default",
            ExtractionSource::Own => "this node",
            ExtractionSource::Distribution => "the Distribution",
        };
        vec![setting, self.value.clone(), from.to_owned()]
    }
}

impl Render for ConfigurationView {
    fn render(&self, out: &mut Text) {
        let columns = [Column::Left("SETTING"), Column::Left("VALUE"), Column::Left("FROM")];
        let rows = self.told.settings.iter().map(|row| {
            let from = match (row.source, &row.distributor) {
                (SettingSource::Own, _) | (_, None) => "this node".to_owned(),
                (SettingSource::Distributor, Some(name)) => name.to_string(),
                (SettingSource::DistributorForAll, Some(name)) => format!("{name}, for all"),
            };
            vec![row.setting.to_string(), row.value.clone(), from]
        });
        let rows = rows.chain(self.extraction.iter().map(ExtractionSetting::row));
        out.table(&columns, rows, "nothing is set: the defaults hold");
        for configuration in self.told.configurations.iter().filter(|configuration| !configuration.unknown.is_empty()) {
            let sections = configuration.unknown.iter().map(|(id, version)| format!("{id} (version {version})"));
            out.line(format_args!(
                "{} also sets what this version does not know: section {}",
                configuration.distributor,
                list(sections)
            ));
        }
    }
}
