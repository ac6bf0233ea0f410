//! One of three libraries with the same dependencies.

shared::library!(
    "gamma",
    gamma_start,
    gamma_panic,
    gamma_hooked,
    gamma_bump,
    gamma_items,
    gamma_std
);
