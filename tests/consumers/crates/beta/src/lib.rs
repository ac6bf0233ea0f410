//! One of three libraries with the same dependencies.

shared::library!(
    "beta",
    beta_start,
    beta_panic,
    beta_hooked,
    beta_bump,
    beta_items,
    beta_std
);
