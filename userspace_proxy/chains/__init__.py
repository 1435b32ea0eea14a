"""What nftables chains of other programs do to packets that this proxy waits for, or sends.

conditions      FirstPacket: whether it meets a rule's conditions (``kernel.nf_tables.matches``)
following       follows chains with a question: with each packet of a kind, or with a client's
denied_clients  asks which clients a chain denies a frontend
denied_pods     asks so about the pods behind each link
"""
