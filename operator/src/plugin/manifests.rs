//! Objects of files, as `kubectl apply -f` reads them: YAML streams, JSON, lists, folders, standard input.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;
use serde_saphyr::UserMessageFormatter;

/// Largest file: far above what an API server takes, and little for a command.
const FILE_BYTES: u64 = 32 << 20;
/// Endings of files that are read of a folder, as kubectl does.
const ENDINGS: [&str; 3] = ["json", "yaml", "yml"];

/// Where the objects that make pods have their template.
const TEMPLATES: [&str; 2] = ["/spec/jobTemplate/spec/template", "/spec/template"];

/// Which files a command reads.
#[derive(Args, Clone, Debug, Default)]
pub struct Files {
    /// File or folder with manifests, - for standard input; may be given more than once
    #[arg(short, long, value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    /// Folders of folders, too
    #[arg(short = 'R', long)]
    recursive: bool,
}

impl Files {
    /// All that is in them.
    ///
    /// # Errors
    /// As [`read`].
    pub fn read(&self) -> Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        for path in &self.filename {
            manifests.extend(read(path, self.recursive)?);
        }
        Ok(manifests)
    }
}

/// A document of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The file it is in, `-` for standard input.
    pub file: String,
    /// The object, or a list of some.
    pub object: Value,
}

impl Manifest {
    /// The objects in it: those of a list, or the one.
    pub fn objects(&self) -> Box<dyn Iterator<Item = &Value> + '_> {
        match is_list(&self.object).then(|| self.object["items"].as_array()).flatten() {
            Some(items) => Box::new(items.iter()),
            None => Box::new(std::iter::once(&self.object)),
        }
    }
}

/// Whether a document is a list of objects: `List`, or the list of a kind such as `PodList`.
#[must_use]
pub fn is_list(object: &Value) -> bool {
    object["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) && object["items"].is_array()
}

/// Where an object has its pod or the template of those that it makes; `None` for what makes none.
#[must_use]
pub fn pod_place(object: &Value) -> Option<&'static str> {
    if (object["apiVersion"].as_str(), object["kind"].as_str()) == (Some("v1"), Some("Pod")) {
        return Some("");
    }
    let is_template = |place: &&str| object.pointer(&format!("{place}/spec/containers")).is_some_and(Value::is_array);
    TEMPLATES.into_iter().find(is_template)
}

/// `Kind namespace/name` of an object, for messages.
#[must_use]
pub fn title(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, metadata) = (text(&object["kind"]), &object["metadata"]);
    let name = [text(&metadata["namespace"]), text(&metadata["name"])];
    let name: Vec<_> = name.into_iter().filter(|part| !part.is_empty()).collect();
    format!("{kind} {}", name.join("/"))
}

/// Reads a file, the files of a folder, and of its folders if so asked, or standard input where the path is `-`.
///
/// # Errors
/// When something cannot be read, or is no YAML; with the file, and the line where that is known.
pub fn read(path: &Path, is_recursive: bool) -> Result<Vec<Manifest>> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().lock().take(FILE_BYTES + 1).read_to_string(&mut text).context("standard input")?;
        return parse("-", &text);
    }
    let told = || path.display().to_string();
    if !path.metadata().with_context(told)?.is_dir() {
        return read_file(path);
    }
    let mut files = Vec::new();
    gather(path, is_recursive, &mut files)?;
    ensure!(!files.is_empty(), "{}: no .yaml, .yml or .json file in this folder", path.display());
    files.sort_unstable();
    let read = files.iter().map(|file| read_file(file)).collect::<Result<Vec<_>>>()?;
    Ok(read.into_iter().flatten().collect())
}

fn gather(folder: &Path, is_recursive: bool, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        // Links to folders are not followed: they may lead back.
        if entry.file_type()?.is_dir() {
            if is_recursive {
                gather(&path, is_recursive, files)?;
            }
        } else if ENDINGS.contains(&ending) {
            files.push(path);
        }
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<Vec<Manifest>> {
    let name = path.display().to_string();
    let mut text = String::new();
    let file = fs::File::open(path).with_context(|| name.clone())?;
    file.take(FILE_BYTES + 1).read_to_string(&mut text).with_context(|| name.clone())?;
    parse(&name, &text)
}

/// Reads a stream of documents. JSON is YAML.
///
/// # Errors
/// When it is no YAML, or something in it is no object.
pub fn parse(file: &str, text: &str) -> Result<Vec<Manifest>> {
    ensure!(u64::try_from(text.len()).unwrap_or(u64::MAX) <= FILE_BYTES, "{file}: is larger than {FILE_BYTES} bytes");
    let documents: Vec<Value> = match serde_saphyr::from_multiple(text) {
        Ok(documents) => documents,
        Err(error) => bail!("{file}: {}", error.without_snippet().render_with_formatter(&UserMessageFormatter)),
    };
    let documents = documents.into_iter().filter(|document| !document.is_null());
    let manifests = documents.map(|object| {
        ensure!(object["kind"].is_string(), "{file}: something in it is no object: it has no `kind`");
        Ok(Manifest { file: file.to_owned(), object })
    });
    manifests.collect()
}

/// Writes documents as a stream. Comments of the files they were read from are not kept.
///
/// # Errors
/// When a value has no place in YAML.
pub fn write<'a>(documents: impl IntoIterator<Item = &'a Value>) -> Result<String> {
    let documents = documents.into_iter().map(|document| Ok(format!("---\n{}", serde_saphyr::to_string(document)?)));
    Ok(documents.collect::<Result<Vec<_>>>()?.concat())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{parse, pod_place, title, write};

    #[test]
    fn what_makes_pods_has_them_in_its_place() {
        let of = |kind: &str, spec: Value| pod_place(&json!({"apiVersion": "v1", "kind": kind, "spec": spec}));
        let template = json!({"template": {"spec": {"containers": []}}});
        assert_eq!(of("Pod", json!({})), Some(""));
        assert_eq!(of("Deployment", template.clone()), Some("/spec/template"));
        assert_eq!(of("CronJob", json!({"jobTemplate": {"spec": template}})), Some("/spec/jobTemplate/spec/template"));
        assert_eq!(of("Service", json!({"template": {"spec": {}}})), None);
    }

    #[test]
    fn streams_and_lists_are_taken_apart() {
        let text = "# first\nkind: A\nmetadata: {name: a, namespace: shop}\n---\n---\nkind: List\nitems:\n- kind: B\n- kind: C\n";
        let read = parse("x.yaml", text).expect("a stream");
        let kinds: Vec<_> = read.iter().flat_map(|one| one.objects()).map(|object| object["kind"].clone()).collect();
        assert_eq!(kinds, ["A", "B", "C"]);
        assert_eq!(title(&read[0].object), "A shop/a");
        let refused = |text: &str| parse("x.yaml", text).expect_err("refused").to_string();
        assert_eq!(refused("a: b"), "x.yaml: something in it is no object: it has no `kind`");
        assert!(refused("kind: {").starts_with("x.yaml: "), "{}", refused("kind: {"));
    }

    /// kubectl reads YAML 1.1, where more words than two are true and false.
    #[test]
    fn what_is_written_is_read_the_same() {
        let texts = [
            "yes",
            "on",
            "n",
            "0777",
            "1e3",
            "null",
            "~",
            "a: b",
            "- a",
            "#",
            "",
            "2026-11-20",
            "0x1f",
            "a\nb\n",
            "é",
            "%",
        ];
        let object =
            json!({"kind": "A", "texts": texts, "one": 1, "none": null, "true": true, "empty": {}, "nothing": []});
        let text = write([&object, &object]).expect("YAML");
        let read = parse("-", &text).expect("a stream");
        assert_eq!(read.iter().map(|one| &one.object).collect::<Vec<&Value>>(), [&object, &object]);
        for word in ["yes", "on", "n", "0777", "1e3", "null", "~"] {
            assert!(!text.contains(&format!("- {word}\n")), "{word} is not quoted in {text}");
        }
    }
}
