//! What a power loss leaves of what is made at the first start.
#![allow(clippy::unwrap_used)]

use std::fs;

use forgetful_disk::{Loss, Mounted, Names};
use platform::config::Config;

#[test]
fn a_secret_that_was_made_survives_a_power_loss() {
    let mut disk = match Mounted::new(Names::OfDirectory) {
        Ok(disk) => disk,
        Err(error) => {
            println!("SKIPPED, no power was cut: that takes root and /dev/fuse: {error}");
            return;
        }
    };
    let config = Config {
        data_dir: disk.path().join("new/data"),
        ..Config::default()
    };
    let file = config.existing_master_key_file().unwrap();
    let secret = fs::read(&file).unwrap();
    assert!(!secret.is_empty());

    disk.cut_power(&mut Loss::Everything, || {});
    disk.mount_again().unwrap();

    assert_eq!(fs::read(&file).unwrap(), secret);
}
