//! The demo from beginning to end.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use postern_tests::wait::{PATIENCE, eventually};
use serde_json::Value;

use crate::Options;
use crate::calls::{CALLS, Call};
use crate::page::Page;
use crate::scene::{CONFIG, Scene};
use crate::signals::Signals;

/// Sets up, calls, shows the rows, and stays if that is asked for.
pub(crate) fn tell(options: &Options, signals: &Signals, page: &mut Page<impl Write>) -> Result<()> {
    let mut scene = Scene::set_up(&options.sidecar)?;
    signals.check()?;
    introduce(&scene, page)?;
    for (number, call) in (1..).zip(&CALLS) {
        make(call, number, &scene, page)?;
        signals.check()?;
    }
    show_rows(&scene, signals, page)?;
    suggest(&scene, options.keep, page)?;
    if options.keep {
        page.line("\nRunning until Ctrl-C.")?;
        signals.wait()?;
    } else {
        signals.check()?;
    }
    stop(&mut scene, page)
}

fn introduce(scene: &Scene, page: &mut Page<impl Write>) -> Result<()> {
    page.title("Postern: four calls through a gate")?;
    page.fact("upstream", &format!("http://{}", scene.upstream.address()))?;
    let ready_ms = scene.ready_after.as_millis();
    page.fact("gate", &format!("https://localhost:{}, ready {ready_ms} ms after its start", scene.gate.port()))?;
    page.fact("status", &format!("http://{}/status", scene.status))?;
    page.fact("files", &scene.folder().display().to_string())?;
    page.line("\nThe commands below are run in that folder.")
}

fn make(call: &Call, number: u8, scene: &Scene, page: &mut Page<impl Write>) -> Result<()> {
    let curl = scene.curl(call.certificate);
    page.title(&format!("{number}. {}", call.title))?;
    page.command(&curl.command_line())?;
    let answer = curl.call()?;
    page.output(&String::from_utf8_lossy(&answer.output))?;
    page.output(&answer.stderr)?;
    call.expected.check(&answer).with_context(|| format!("call {number} did not end as it should"))
}

fn show_rows(scene: &Scene, signals: &Signals, page: &mut Page<impl Write>) -> Result<()> {
    let reasons = eventually("the four rows", PATIENCE, || {
        signals.check()?;
        let rows = scene.sidecar.launch().query("select reason from requests order by id")?;
        Ok((rows.len() >= CALLS.len()).then(|| rows.iter().map(reason).collect::<Vec<_>>()))
    })?;
    page.title("Each decision is a row, the refused handshake included:")?;
    page.command(&Scene::log_command(&[]))?;
    page.output(&scene.log(&[])?)?;
    let expected: Vec<_> = CALLS.iter().map(|call| call.expected.reason().map(str::to_owned)).collect();
    ensure!(reasons == expected, "the rows give the reasons {reasons:?}; expected {expected:?}");
    Ok(())
}

/// A row's reason; an allowed call has none.
fn reason(row: &Value) -> Option<String> {
    row["reason"].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn suggest(scene: &Scene, keep: bool, page: &mut Page<impl Write>) -> Result<()> {
    let introduction = if keep {
        "To go on by hand:"
    } else {
        "To go on by hand, `make demo KEEP=1` leaves all this running and prints these with its own folder and ports:"
    };
    page.title(introduction)?;
    page.line(&format!("  cd {}", scene.folder().display()))?;
    page.suggestion("call again", &scene.curl(Some("billing")).command_line())?;
    page.suggestion(
        "what was refused in the last hour",
        &Scene::log_command(&["--since", "1h", "--verdict", "refused"]),
    )?;
    let by_reason = "select reason, sum(repeat) from requests group by reason";
    page.suggestion("ask in SQL, read-only", &Scene::log_command(&["--sql", by_reason]))?;
    let who = "select time, identity, subject, reason from requests";
    page.suggestion("or with sqlite3", &format!("sqlite3 -header -column requests.db '{who}'"))?;
    page.suggestion("what the sidecar has loaded", &format!("./postern-sidecar status --address {}", scene.status))?;
    let edit = format!("sed -i 's/\"Revoked\"/\"Suspended\"/' {CONFIG}");
    page.suggestion("change the configuration; the next call of mallory gets another reason", &edit)?;
    page.line(&format!("  {}", scene.curl(Some("mallory")).command_line()))
}

fn stop(scene: &mut Scene, page: &mut Page<impl Write>) -> Result<()> {
    scene.sidecar.terminate()?;
    let status = scene.sidecar.wait_exit()?;
    ensure!(status.success(), "the sidecar did not drain: it ended with {status}");
    page.line("\nThe gate is drained, the folder is removed.")
}
