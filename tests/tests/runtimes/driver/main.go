// Debian's libcni, called as a runtime calls it.
//
//	driver ADD|CHECK|DEL|VALIDATE LIST CONTAINER NETNS CACHE PLUGINS...
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containernetworking/cni/libcni"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 6 {
		return errors.New("too few arguments")
	}
	verb, file, container, netns, cache, plugins := args[0], args[1], args[2], args[3], args[4], args[5:]
	list, err := libcni.ConfListFromFile(file)
	if err != nil {
		return err
	}
	cni := libcni.NewCNIConfigWithCacheDir(plugins, cache, nil)
	attachment := &libcni.RuntimeConf{
		ContainerID: container,
		NetNS:       netns,
		IfName:      "eth0",
		Args:        [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", "web"}},
	}
	ctx := context.Background()
	switch verb {
	case "VALIDATE":
		_, err = cni.ValidateNetworkList(ctx, list)
		return err
	case "ADD":
		result, err := cni.AddNetworkList(ctx, list, attachment)
		if err != nil {
			return err
		}
		return result.Print()
	case "CHECK":
		return cni.CheckNetworkList(ctx, list, attachment)
	case "DEL":
		return cni.DelNetworkList(ctx, list, attachment)
	}
	return fmt.Errorf("unknown verb %s", verb)
}
