//! All of them in one library.

pub use gstfallbackswitch as _;
pub use gstjson as _;
pub use gstlivesync as _;
pub use gstregex as _;
pub use gstrsrtp as _;
pub use gsttextwrap as _;
pub use gstthreadshare as _;
pub use gsttogglerecord as _;
