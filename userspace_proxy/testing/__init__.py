"""For users' test suites: Services with backends, and fakes with the contract of the real parts.

``plugin`` is the pytest plugin; ``service_proxy.ServiceProxy``, ``service_network.ServiceNetwork``
and ``kubernetes_services.KubernetesServices`` are what its fixtures yield, and ``backends`` are
what their Services are made of.
``fake_steering.FakeSteering`` steers in memory and passes the contract suite of the real steerings;
``fake_api_server.FakeApiServer`` serves Services, EndpointSlices and Nodes over HTTP as
kube-apiserver does, faults included; ``fake_api_objects`` contains its objects and their history.
They are public: import them from their modules.
"""
