"""What tools/compare-boot and tools/compare-qemu have in common, and the parts of the latter."""
