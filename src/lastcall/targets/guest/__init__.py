"""Virtual machines as targets: one algorithm over whatever shows the guest (QMP, libvirt)."""
