package main

import (
	"context"
	"flag"
	"fmt"
	"net/url"

	"go.etcd.io/etcd/server/v3/embed"
)

// serveEtcd is one etcd without peers and without fsync: its data live as long as a test.
func serveEtcd(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("etcd", flag.ContinueOnError)
	dir := flags.String("data-dir", "", "folder of its data")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config := embed.NewConfig()
	config.Dir = *dir
	config.UnsafeNoFsync = true
	config.LogLevel = "warn"
	for port, urls := range map[string][]*[]url.URL{
		"2379": {&config.ListenClientUrls, &config.AdvertiseClientUrls},
		"2380": {&config.ListenPeerUrls, &config.AdvertisePeerUrls},
	} {
		for _, to := range urls {
			*to = []url.URL{{Scheme: "http", Host: "127.0.0.1:" + port}}
		}
	}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	server, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer server.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-server.Err():
		return fmt.Errorf("ended: %w", err)
	}
}
