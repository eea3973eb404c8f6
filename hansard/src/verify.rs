//! `hansard verify`: whether what is stored is what the log gives, and the log what it was.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use merkle::{InclusionProof, VerifyingKey, heads_of};
use notary::{Evidence, verify_log};
use platform::Context;
use platform::config::Args;
use platform::signing;

use crate::existing::{name_of_process, open_existing, open_existing_catalogue, open_existing_log};
use crate::export::VerifyExportArgs;
use crate::progress::progress_bar;

/// The exit code where there are differences.
const EXIT_DIFFERENT: u8 = 1;

/// The exit code where nothing can be said.
const EXIT_NOT_DONE: u8 = 2;

/// What to verify.
#[derive(Debug, Subcommand)]
pub(crate) enum VerifyCommand {
    /// Fold the log afresh and compare every user, room, message, read mark, list and unread count with
    /// what is stored; exit with 0 if they are the same, 1 if not, 2 if it could not be done
    ReadModels(ReadModelsArgs),
    /// Hash the log afresh and compare it with the stored tree and with signed tree heads; exit with 0 if it is
    /// what was signed, 1 if not, 2 if it could not be done
    Log(LogArgs),
    /// Verify the proof of an event, as GET /audit/proof answers it, without log or network; exit with 0 if it
    /// holds, 1 if not, 2 if it can't be read
    Proof(ProofArgs),
    /// Verify what `hansard export` wrote, without log or network: that everything in it fits together, and was in
    /// the log when its tree head was signed; exit with 0 if so, 1 if not, 2 if it can't be read
    Export(VerifyExportArgs),
}

/// How to verify the log.
#[derive(Debug, clap::Args)]
pub(crate) struct LogArgs {
    /// Compare with the tree heads in this file as well: a copy that was kept elsewhere, or one that a witness
    /// has signed too; may be given more than once
    #[arg(long, value_name = "FILE")]
    heads: Vec<PathBuf>,

    /// Trust tree heads that are signed with this public key, as `hansard tree key` prints it; may be given
    /// more than once [default: the keys of signing_key_file]
    #[arg(long, value_name = "KEY")]
    key: Vec<VerifyingKey>,

    /// Do without the stored tree: with tree heads alone it can be said up to where the log is as it was signed
    #[arg(long, requires = "heads")]
    without_tree: bool,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Which proof.
#[derive(Debug, clap::Args)]
pub(crate) struct ProofArgs {
    /// The proof: JSON
    file: PathBuf,

    /// The public key of the log, as `hansard tree key` prints it, from somebody whom you trust
    #[arg(long, value_name = "KEY", required = true)]
    key: Vec<VerifyingKey>,
}

/// How to verify read models.
#[derive(Debug, clap::Args)]
pub(crate) struct ReadModelsArgs {
    /// Verify this generation instead of the one that is read
    #[arg(long, value_name = "N")]
    generation: Option<u32>,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,

    /// Hold about this many events in memory at a time; the log is read as often as that takes
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    at_once: u64,
}

pub(crate) fn verify(args: &Args, command: &VerifyCommand) -> ExitCode {
    let equal = Cell::new(None);
    // An error is told in there, and what comes here is that nothing was found out.
    match command {
        VerifyCommand::ReadModels(how) => {
            platform::run("hansard", args, async |context| {
                equal.set(Some(read_models(context, how).await?));
                Ok(())
            });
        }
        VerifyCommand::Log(how) => {
            platform::run("hansard", args, async |context| {
                equal.set(Some(log(context, how).await?));
                Ok(())
            });
        }
        VerifyCommand::Proof(proof) => {
            let outcome = self::proof(proof).map(|holds| equal.set(Some(holds)));
            platform::exit("hansard", outcome);
        }
        VerifyCommand::Export(export) => {
            let outcome = crate::export::verify(export).map(|fits| equal.set(Some(fits)));
            platform::exit("hansard", outcome);
        }
    }
    match equal.get() {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::from(EXIT_DIFFERENT),
        None => ExitCode::from(EXIT_NOT_DONE),
    }
}

/// Prints the report; says whether the log is what was signed.
async fn log(context: Context, args: &LogArgs) -> anyhow::Result<bool> {
    let keys = match args.key.is_empty() {
        false => args.key.clone(),
        true => {
            let keys = signing::load_existing(&context.config)
                .context("say which keys to trust, with --key or --signing-key-file")?;
            keys.iter().map(|key| key.public().clone()).collect()
        }
    };
    let mut heads = Vec::new();
    for file in &args.heads {
        let by = file.display().to_string();
        let text = read(file)?;
        heads.extend(heads_of(&text).map(|note| (note, by.clone())));
    }
    let log = open_existing_log(&context).await?;
    let tree = match args.without_tree {
        true => None,
        false => {
            let catalogue = open_existing_catalogue(&context).await;
            let catalogue = catalogue.context("without it: --without-tree --heads FILE")?;
            Some(catalogue.tree())
        }
    };
    let bar = progress_bar();
    let evidence = Evidence {
        store: tree.as_deref(),
        heads,
        keys,
        progress: &|done, total| {
            bar.set_length(total);
            bar.set_position(done);
        },
    };
    let verifying = verify_log(log.as_ref(), evidence);
    let report = context.shutdown.run_until_cancelled(verifying).await;
    let report = report.context("interrupted")??;
    bar.finish_and_clear();
    match args.json {
        true => crate::print_line(&serde_json::to_string(&report)?)?,
        false => crate::print_line(&report.to_string())?,
    }
    Ok(report.is_equal())
}

/// Prints what the proof proves, or why it proves nothing; says whether it holds.
fn proof(args: &ProofArgs) -> anyhow::Result<bool> {
    let text = read(&args.file)?;
    let proof: InclusionProof = serde_json::from_str(&text)
        .with_context(|| format!("{} is not a proof", args.file.display()))?;
    match proof.verify(&args.key) {
        Ok(head) => {
            let what = match proof.payload()? {
                Some(payload) => format!("an event of {} bytes", payload.len()),
                None => "no event any more".to_owned(),
            };
            crate::print_line(&format!(
                "proven: the log {} has {what} at position {}, in the signed tree of {} events",
                head.origin, proof.position, head.size
            ))?;
            Ok(true)
        }
        Err(error) => {
            crate::print_line(&format!("not proven: {error}"))?;
            Ok(false)
        }
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))
}

/// Prints the report; says whether it found no difference.
async fn read_models(context: Context, args: &ReadModelsArgs) -> anyhow::Result<bool> {
    let (record, catalogue) = open_existing(&context).await?;
    let bar = progress_bar();
    let show = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let options = verify::Options {
        at_once: args.at_once,
        progress: &show,
        ..verify::Options::default()
    };
    let name = name_of_process(&context);
    let report = projector::verify_generation(
        &record,
        catalogue.as_ref(),
        args.generation,
        &name,
        &options,
        &context.shutdown,
    );
    let report = report.await?;
    bar.finish_and_clear();
    match args.json {
        true => crate::print_line(&serde_json::to_string(&report)?)?,
        false => crate::print_line(&report.to_string())?,
    }
    Ok(report.is_equal())
}
