// A gRPC server that has nothing but the health service (grpc.health.v1). It prints its address, and takes one word a
// line: what it says of service `orders` from then on.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	state := health.NewServer()
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, state)
	fmt.Println(listener.Addr())
	go func() {
		words := bufio.NewScanner(os.Stdin)
		for words.Scan() {
			said := grpc_health_v1.HealthCheckResponse_ServingStatus(grpc_health_v1.HealthCheckResponse_ServingStatus_value[words.Text()])
			state.SetServingStatus("orders", said)
		}
	}()
	if err := server.Serve(listener); err != nil {
		panic(err)
	}
}
