//! Has the crate built again when a file of the web page changes: embedding alone doesn't notice.

fn main() {
    println!("cargo::rerun-if-changed=web");
}
