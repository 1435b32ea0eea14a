// Package shop has tests of programs that dial Services, with envtest: a real API server, no node.
//
// Run them by `go test`, with KUBEBUILDER_ASSETS from `setup-envtest use -p env`, and
// userspace-proxy in the PATH or in USERSPACE_PROXY.
package shop

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

const namespace = "shop"

// cluster starts an API server and the proxy of its Services.
func cluster(t *testing.T) (client.Client, *proxy) {
	t.Helper()
	environment := &envtest.Environment{}
	// Without this address, kube-apiserver needs a default route.
	environment.ControlPlane.GetAPIServer().Configure().Append("advertise-address", "127.0.0.1")
	config, err := environment.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = environment.Stop() })
	user, err := environment.AddUser(
		envtest.User{Name: "userspace-proxy", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := user.KubeConfig()
	if err != nil {
		t.Fatal(err)
	}
	api, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	create(t, api, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	return api, startProxy(t, kubeconfig)
}

func create(t *testing.T, api client.Client, object client.Object) {
	t.Helper()
	if err := api.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

// createService creates the Service shop/web, whose target port has a name.
func createService(t *testing.T, api client.Client) {
	t.Helper()
	create(t, api, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"},
			Ports: []corev1.ServicePort{
				{Name: "http", Port: 80, TargetPort: intstr.FromString("web")},
			},
		},
	})
}

// runPod creates a ready Pod that runs in this test and answers with its name.
func runPod(t *testing.T, api client.Client, name string) *corev1.Pod {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, name)
	})
	server := &http.Server{Handler: handler}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	address := listener.Addr().(*net.TCPAddr)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      name,
			Labels:    map[string]string{"app": "web"},
			Annotations: map[string]string{
				// The port on which the Pod listens, instead of its container port.
				"userspace-proxy.io/ports": fmt.Sprintf("8080=%d", address.Port),
			},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name:  "web",
			Image: "shop",
			Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}},
		}}},
	}
	create(t, api, pod)
	pod.Status.Phase = corev1.PodRunning
	pod.Status.PodIP = address.IP.String()
	pod.Status.PodIPs = []corev1.PodIP{{IP: pod.Status.PodIP}}
	setReady(t, api, pod, corev1.ConditionTrue)
	return pod
}

func setReady(t *testing.T, api client.Client, pod *corev1.Pod, ready corev1.ConditionStatus) {
	t.Helper()
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	if err := api.Status().Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
}

// fetch represents the program under test, which dials a Service.
func fetch(t *testing.T, address string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(
		t.Context(), http.MethodGet, "http://"+address, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	// Each request is a new connection, so that endpoints take turns.
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestAServiceAnswersByItsReadyPods(t *testing.T) {
	api, services := cluster(t)
	createService(t, api)
	blue, green := runPod(t, api, "web-blue"), runPod(t, api, "web-green")

	address := services.waitFor(t, "shop/web:http", 2)
	eventually(t, "both Pods answer", func() bool {
		first, second := fetch(t, address), fetch(t, address)
		return first != second
	})

	setReady(t, api, blue, corev1.ConditionFalse)
	services.waitFor(t, "shop/web:http", 1)
	eventually(t, "only the ready Pod answers", func() bool {
		return fetch(t, address) == "web-green" && fetch(t, address) == "web-green"
	})

	if err := api.Delete(t.Context(), green); err != nil {
		t.Fatal(err)
	}
	services.waitFor(t, "shop/web:http", 0)
	eventually(t, "clients are refused", func() bool {
		connection, err := net.Dial("tcp", address)
		if err == nil {
			connection.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}
