//! What is set at this node, and by whom.

use serde::{Deserialize, Serialize};
use ted_cli::output::{Column, Render, Text, list};
use ted_core::subscriber::{NodeSettings, SettingSource};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ConfigurationShow {}

ted_cli::operations! {
    ConfigurationShow => "configuration/show" -> ConfigurationView,
}

/// The settings in force, each with who says so.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ConfigurationView(pub(crate) NodeSettings);

impl Render for ConfigurationView {
    fn render(&self, out: &mut Text) {
        let columns = [Column::Left("SETTING"), Column::Left("VALUE"), Column::Left("FROM")];
        let rows = self.0.settings.iter().map(|row| {
            let from = match (row.source, &row.distributor) {
                (SettingSource::Own, _) | (_, None) => "this node".to_owned(),
                (SettingSource::Distributor, Some(name)) => name.to_string(),
                (SettingSource::DistributorForAll, Some(name)) => format!("{name}, for all"),
            };
            vec![row.setting.to_string(), row.value.clone(), from]
        });
        out.table(&columns, rows, "nothing is set: the defaults hold");
        for configuration in self.0.configurations.iter().filter(|configuration| !configuration.unknown.is_empty()) {
            let sections = configuration.unknown.iter().map(|(id, version)| format!("{id} (version {version})"));
            out.line(format_args!(
                "{} also sets what this version does not know: section {}",
                configuration.distributor,
                list(sections)
            ));
        }
    }
}
