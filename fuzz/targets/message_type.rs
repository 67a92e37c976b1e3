//! Any document, in any pieces: the same is found wherever it is cut, by its first bytes alone, and it is what a parser
//! finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roxmltree::{Document, ParsingOptions};
use sidecar_decide::MessageType;
use sidecar_decide::message_type::{LOOKED_AT_MAX, RootScan};

fuzz_target!(|document: &[u8]| {
    let found = scan([document]);
    for bytes in [1, 2, 3, 5, 8, 13] {
        assert_eq!(scan(document.chunks(bytes)), found, "in pieces of {bytes}");
    }
    let bound = usize::from(LOOKED_AT_MAX);
    assert_eq!(scan([&document[..document.len().min(bound)]]), found, "what comes later counts for nothing");
    assert_eq!(found.is_none(), document.is_empty());
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let Ok(text) = std::str::from_utf8(document) else { return };
    let Ok(parsed) = Document::parse_with_options(text, options) else { return };
    let name = parsed.root_element().tag_name().name();
    if let Some(root) = found.filter(|found| found.is_root()) {
        assert_eq!(name, root.name());
    } else if document.len() < bound && !text.contains("encoding") && !text.contains("<!") {
        // Of what is above the parser takes more than it should.
        assert!(!MessageType::named(name).is_some_and(MessageType::is_root), "{name} is not found");
    }
});

fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<MessageType> {
    let mut scan = RootScan::new();
    let found = pieces.into_iter().find_map(|piece| scan.feed(piece));
    found.or_else(|| scan.ended())
}
