package main

import (
	"context"
	"flag"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
)

// names answers for cluster.local as CoreDNS' kubernetes plugin does, which does not compile with this Kubernetes' client (1.12.1): A records
// of Services (of a headless one each endpoint that is ready, or published all the same, in changing order) and of the pods' own names.
// Other names do not exist.
type names struct {
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
}

const (
	suffix = ".svc.cluster.local."
	ttl    = 30 // seconds, as CoreDNS' default
)

func serveDNS(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("dns", flag.ContinueOnError)
	config := flags.String("kubeconfig", "", "how to reach the API server")
	listen := flags.String("listen", "127.0.0.1:53", "address, for UDP and TCP")
	if err := flags.Parse(args); err != nil {
		return err
	}
	client, err := connected(*config)
	if err != nil {
		return err
	}
	informer := informers.NewSharedInformerFactory(client, 0)
	n := &names{informer.Core().V1().Services().Lister(), informer.Discovery().V1().EndpointSlices().Lister()}
	informer.Start(ctx.Done())
	informer.WaitForCacheSync(ctx.Done())
	ended := make(chan error, 2)
	for _, network := range []string{"udp", "tcp"} {
		server := &dns.Server{Addr: *listen, Net: network, Handler: n}
		go func() { ended <- server.ListenAndServe() }()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return err
	}
}

// ServeDNS answers one question.
func (n *names) ServeDNS(w dns.ResponseWriter, ask *dns.Msg) {
	answer := new(dns.Msg)
	answer.SetReply(ask)
	answer.Authoritative, answer.RecursionAvailable = true, true
	if len(ask.Question) == 1 {
		question := ask.Question[0]
		addresses, exists := n.lookUp(strings.ToLower(question.Name))
		if !exists {
			answer.Rcode = dns.RcodeNameError
		}
		rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
		for _, address := range addresses {
			if ip, err := netip.ParseAddr(address); err == nil && ip.Is4() && question.Qtype == dns.TypeA {
				header := dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}
				answer.Answer = append(answer.Answer, &dns.A{Hdr: header, A: ip.AsSlice()})
			}
		}
	}
	_ = w.WriteMsg(answer)
}

// lookUp returns a name's addresses, and whether there is such a name.
func (n *names) lookUp(name string) ([]string, bool) {
	name, ok := strings.CutSuffix(name, suffix)
	parts := strings.Split(name, ".")
	host := ""
	if len(parts) == 3 {
		host, parts = parts[0], parts[1:]
	}
	if !ok || len(parts) != 2 {
		return nil, false
	}
	service, err := n.services.Services(parts[1]).Get(parts[0])
	if err != nil {
		return nil, false
	}
	if service.Spec.ClusterIP != "None" {
		return []string{service.Spec.ClusterIP}, host == ""
	}
	slices, err := n.slices.EndpointSlices(parts[1]).List(labels.SelectorFromSet(labels.Set{discovery.LabelServiceName: parts[0]}))
	if err != nil {
		return nil, false
	}
	seen := map[string]bool{}
	var addresses []string
	for _, slice := range slices {
		for _, endpoint := range slice.Endpoints {
			ready := endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready
			if !ready || host != "" && (endpoint.Hostname == nil || *endpoint.Hostname != host) {
				continue
			}
			for _, address := range endpoint.Addresses {
				if !seen[address] {
					seen[address] = true
					addresses = append(addresses, address)
				}
			}
		}
	}
	return addresses, len(addresses) > 0
}
