//! One of three libraries with the same dependencies.

shared::library!(
    "alpha",
    alpha_start,
    alpha_panic,
    alpha_hooked,
    alpha_bump,
    alpha_items,
    alpha_std
);
