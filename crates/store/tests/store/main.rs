//! Tests of collections through their public interface: behaviour, faults, processes.

mod concurrency;
mod conformance;
mod damage;
mod filter_language;
mod filter_oracle;
mod filters;
mod flipped_bytes;
mod full_text;
mod indexes;
mod item_tables;
mod killed_builds;
mod opening;
mod processes;
mod random_operations;
mod sample;
mod sampling;

/// The local store fulfils the contract of every store.
#[test]
fn local_store_conforms() {
    let folders = tempfile::tempdir().unwrap();
    let mut count = 0;
    conformance::check_all(&mut || {
        count += 1;
        let folder = folders.path().join(count.to_string());
        Box::new(sample::open_write(&folder))
    });
}
