//! Generators of clusters and packets for property tests.
