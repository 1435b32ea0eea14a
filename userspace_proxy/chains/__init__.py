"""What nftables chains of other programs do to packets that this proxy waits for, or sends.

Rules are text here, as ``kernel.nf_tables`` has read them.
"""
