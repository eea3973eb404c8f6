//! What a power loss leaves of the file of tree heads.
#![allow(clippy::unwrap_used)]

use forgetful_disk::{Loss, Mounted, Names};
use merkle::{Hash, SigningKey, TreeHead};
use notary::HeadsFile;

#[tokio::test]
async fn a_tree_head_that_was_written_survives_a_power_loss() {
    let mut disk = match Mounted::new(Names::OfDirectory) {
        Ok(disk) => disk,
        Err(error) => {
            println!("SKIPPED, no power was cut: that takes root and /dev/fuse: {error}");
            return;
        }
    };
    let key = SigningKey::from_seed("test.example/log", [7; 32]).unwrap();
    let file = HeadsFile::new(disk.path().join("tree-heads"));
    for size in 1..=2 {
        let head = TreeHead::sign(&key, "log", size, Hash([7; 32])).unwrap();
        file.append(&head).await.unwrap();

        disk.cut_power(&mut Loss::Everything, || {});
        disk.mount_again().unwrap();

        let newest = file.newest(vec![key.public().clone()]).await.unwrap();
        assert_eq!(newest.unwrap().size, size);
    }
}
