//! A file system whose power can be cut: it then forgets what was not synced, as a disk with a volatile cache
//! under the kernel's own caches does. Killing a process shows nothing of that, since the kernel keeps what
//! the process wrote.
//!
//! - [`Disk`] is the model, without any mount: files and directories in two versions, what programs see and
//!   what a power cut leaves. It says what is durable when, and why so.
//! - [`Mounted`] lets real programs use one, through FUSE. That takes root and `/dev/fuse`.
//!
//! For tests only.

mod content;
mod disk;
mod fuse;
mod loss;
mod mounted;

pub use disk::{Disk, Facts, Inode, Kind, Names, ROOT};
pub use loss::Loss;
pub use mounted::Mounted;
