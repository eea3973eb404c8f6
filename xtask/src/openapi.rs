//! `cargo xtask openapi`: keeps the published description of the API in step with the code.

use std::process::ExitCode;

use anyhow::{Context, ensure};

use crate::project::{Project, cargo};

/// Writes contract/openapi.json as `hansard openapi` prints it, or checks that it is so.
pub fn run(check: bool, project: &Project) -> anyhow::Result<ExitCode> {
    let output = cargo()
        .args(["run", "--quiet", "--package", "hansard", "--bin", "hansard"])
        .args(["--", "openapi"])
        .current_dir(&project.root)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cargo can't be run")?;
    ensure!(output.status.success(), "hansard openapi failed");
    let document: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("hansard openapi printed no JSON")?;
    ensure!(
        document["openapi"].is_string(),
        "hansard openapi printed something else than an OpenAPI document"
    );
    let mut text = String::from_utf8(output.stdout)?.trim_end().to_owned();
    text.push('\n');
    let path = project.root.join("contract/openapi.json");
    if check {
        let present = std::fs::read_to_string(&path).unwrap_or_default();
        ensure!(
            present == text,
            "contract/openapi.json is not what the code declares: run `cargo xtask openapi` and commit it"
        );
    } else {
        std::fs::write(&path, text)
            .with_context(|| format!("{} can't be written", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
