//! HAProxy with `haproxy.cfg`, which says what it does; who reads its log is here.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::child::{Child, free_address};
use super::scene::Scene;
use super::{Process, Running};

/// What the package calls itself, such as `2.6.12-1+deb12u4`.
pub fn version() -> Result<String> {
    let output = Command::new("haproxy").arg("-v").output().context("start haproxy; is it installed?")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().nth(2).context("no version in what haproxy says")?;
    Ok(version.to_owned())
}

pub(super) fn start(scene: &Scene) -> Result<Running> {
    let address = free_address()?;
    let text = include_str!("haproxy.cfg")
        .replace("{listen}", &address.to_string())
        .replace("{folder}", &scene.path().to_string_lossy())
        .replace("{maxconn}", &scene.connections.to_string())
        .replace("{upstream}", &scene.application.to_string());
    let file = scene.path().join("haproxy.cfg");
    fs::write(&file, text)?;
    let checked = Command::new("haproxy").arg("-c").arg("-f").arg(&file).output()?;
    ensure!(
        checked.status.success(),
        "haproxy refuses its configuration: {}",
        String::from_utf8_lossy(&checked.stderr)
    );
    // In the foreground and without a master process: one process is all there is.
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file).stderr(Stdio::null());
    Ok(Running { address, process: Process::Haproxy(Child::listening(&mut command, address)?), _folder: None })
}
