// Command spread asks the orchestrators behind an address for their description, as often as it is told, over one channel.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

const policy = `{"loadBalancingConfig":[{"round_robin":{}}]}`

func main() {
	calls, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	connection, err := grpc.Dial("dns:///"+os.Args[1],
		grpc.WithInsecure(), grpc.WithDefaultServiceConfig(policy))
	if err != nil {
		panic(err)
	}
	defer connection.Close()
	failed := 0
	for call := 0; call < calls; call++ {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		// Both messages are without fields that matter here, so that no stubs are needed.
		err := connection.Invoke(ctx, "/sluiceway.pipeline.v1.PipelineService/Describe", &emptypb.Empty{}, &emptypb.Empty{},
			grpc.WaitForReady(true))
		cancel()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			failed++
		}
	}
	fmt.Println(failed)
}
