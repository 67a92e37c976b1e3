//! `inject`: puts the gate into manifests, as the webhook does with pods, without a cluster.

use std::io::{self, Write};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use super::Ended;
use super::manifests::{self, Files, title};
use crate::inject::{self, Common, Injected, Maker, Verdict};

/// What `inject` is told.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    #[command(flatten)]
    files: Files,
    /// Image of the sidecar
    #[arg(long, value_name = "IMAGE", default_value = inject::IMAGE)]
    sidecar_image: String,
    /// Port of the sidecar's probes and /status, as the operator has it
    #[arg(long, value_name = "PORT", default_value_t = inject::STATUS_PORT)]
    status_port: u16,
}

/// Writes all manifests with the gate in whatever makes pods, but for those whose label says `disabled`.
///
/// # Errors
/// When something cannot be read, or cannot have the gate that it asks for; then nothing is written.
pub fn run(arguments: &Arguments, output: &mut dyn Write) -> Result<Ended> {
    let common =
        Common { image: arguments.sidecar_image.clone(), image_pull_policy: None, status_port: arguments.status_port };
    let mut documents = Vec::new();
    let mut told = Told::default();
    for mut manifest in arguments.files.read()? {
        let file = manifest.file.clone();
        if manifests::is_list(&manifest.object) {
            let items = manifest.object["items"].as_array_mut();
            items.into_iter().flatten().for_each(|item| told.inject(item, &file, &common));
        } else {
            told.inject(&mut manifest.object, &file, &common);
        }
        documents.push(manifest.object);
    }
    for warning in &told.warnings {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    if !told.wrong.is_empty() {
        bail!("nothing is written:\n{}", told.wrong.join("\n"));
    }
    output.write_all(manifests::write(&documents)?.as_bytes())?;
    Ok(Ended::Well)
}

/// What is to be told of objects.
#[derive(Default)]
struct Told {
    warnings: Vec<String>,
    wrong: Vec<String>,
}

impl Told {
    fn inject(&mut self, object: &mut Value, file: &str, common: &Common) {
        let named = |message: &str| format!("{file}: {}: {message}", title(object));
        match judge(object, common) {
            None | Some((_, Verdict::Untouched(None))) => {}
            Some((_, Verdict::Untouched(Some(why)))) => self.warnings.push(named(&why)),
            Some((_, Verdict::Refused(why))) => self.wrong.push(named(&why)),
            Some((place, Verdict::Injected(Injected { object: injected, warnings }))) => {
                self.warnings.extend(warnings.iter().map(|warning| named(warning)));
                if let Some(place) = object.pointer_mut(place) {
                    *place = injected;
                }
            }
        }
    }
}

/// The place of the pod or template in an object, and what becomes of it; `None` for what makes no pods.
fn judge(object: &Value, common: &Common) -> Option<(&'static str, Verdict)> {
    let place = manifests::pod_place(object)?;
    if place.is_empty() {
        return Some((place, inject::pod(object, true, common)));
    }
    let text = |name: &str| object[name].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let name = [&object["metadata"]["name"], &object["metadata"]["generateName"]].into_iter().find_map(Value::as_str);
    let name = name.unwrap_or_default().trim_end_matches('-');
    let maker = Maker { api_version, kind, name };
    Some((place, inject::template(object.pointer(place)?, maker, true, common)))
}
