"""Fakes that fulfil the contracts of the real parts, with readable output.

``steering.FakeSteering`` steers in memory and passes the contract suite of the real steering modes;
``api_server.FakeApiServer`` serves Services, EndpointSlices, Pods and Nodes over HTTP as
kube-apiserver does, including faults; ``api_objects`` contains its objects and their history.
``agents.FakeAgents`` are the agents of any number of nodes behind this API server, with answers of
``agent_answers``, some of them hostile, and facts of ``agent_status``.
"""
