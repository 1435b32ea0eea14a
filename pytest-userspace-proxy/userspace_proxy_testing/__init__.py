"""For users' test suites: Services with backends, and fakes with the contract of the real parts.

``plugin`` is the pytest plugin; ``service_proxy.ServiceProxy``, ``service_network.ServiceNetwork``
and ``kubernetes_services.KubernetesServices`` are what its fixtures yield, and ``backends`` are
what their Services are made of.
``proxy_with_faults.ProxyWithFaults`` is a ``Proxy`` whose endpoints can have faults; ``fakes`` have
the contract of the real parts. They are public: import them from their modules.
"""
