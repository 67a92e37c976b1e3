// A gRPC server and client for the tests, by the library that most of the world uses, so that nothing here is tested
// against itself. `server` prints where it listens, and has the health service besides; `client` makes one call and prints what came of it as JSON; `soak` has one
// stream of some seconds after the other until its input ends, and prints a line for each.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const service = "postern.test.Echo"

type message = wrapperspb.StringValue

// What a client's call came to.
type outcome struct {
	Code     string   `json:"code"`
	Message  string   `json:"message"`
	Received []string `json:"received"`
	Header   []string `json:"header"`
	Trailer  []string `json:"trailer"`
}

func main() {
	switch os.Args[1] {
	case "server":
		serve(os.Args[2:])
	case "client":
		call(os.Args[2], os.Args[3], os.Args[4], os.Args[5:])
	case "soak":
		soak(os.Args[2], os.Args[3])
	}
}

// Serves until it is ended; with a certificate where one is named: chain, key. A single word is the address.
func serve(words []string) {
	address := "127.0.0.1:0"
	if len(words) == 1 {
		address = words[0]
	}
	var options []grpc.ServerOption
	if len(words) == 2 {
		pair, err := tls.LoadX509KeyPair(words[0], words[1])
		check(err)
		options = append(options, grpc.Creds(credentials.NewServerTLSFromCert(&pair)))
	}
	server := grpc.NewServer(options...)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Unary", Handler: unary}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Stream", Handler: stream, ServerStreams: true, ClientStreams: true},
		},
	}, struct{}{})
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", address)
	check(err)
	fmt.Println(listener.Addr())
	check(server.Serve(listener))
}

func unary(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	request := new(message)
	if err := decode(request); err != nil {
		return nil, err
	}
	incoming, _ := metadata.FromIncomingContext(ctx)
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-header", "head"))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "tail"))
	switch request.Value {
	case "fail":
		return nil, status.Error(codes.FailedPrecondition, "not yet: ü%")
	case "authority":
		return wrapperspb.String(strings.Join(incoming.Get(":authority"), ",")), nil
	case "deadline":
		deadline, has := ctx.Deadline()
		return wrapperspb.String(fmt.Sprint(has && time.Until(deadline) > time.Minute)), nil
	case "wait":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return request, nil
}

// Echoes; `end` ends well while the client may still send, `abort` badly, `many` sends a lot, `wait` nothing.
func stream(_ any, stream grpc.ServerStream) error {
	for {
		request := new(message)
		if err := stream.RecvMsg(request); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		switch request.Value {
		case "end":
			return nil
		case "abort":
			return status.Error(codes.Aborted, "stopped")
		case "many":
			for range 1000 {
				if err := stream.SendMsg(wrapperspb.String(strings.Repeat("x", 1000))); err != nil {
					return err
				}
			}
		case "wait":
			<-stream.Context().Done()
			return stream.Context().Err()
		default:
			if err := stream.SendMsg(request); err != nil {
				return err
			}
		}
	}
}

// Calls `method` at an address, with certificates from a folder or without TLS, sending messages. FOLDER=NAME has another
// certificate than `billing`.
func call(address, folder, method string, messages []string) {
	connection, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(secured(address, folder)))
	check(err)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Hour)
	defer cancel()
	var told outcome
	var header, trailer metadata.MD
	if method == "Unary" {
		answer := new(message)
		err = connection.Invoke(ctx, "/"+service+"/Unary", wrapperspb.String(messages[0]), answer,
			grpc.Header(&header), grpc.Trailer(&trailer))
		if err == nil {
			told.Received = append(told.Received, answer.Value)
		}
	} else {
		told.Received, header, trailer, err = converse(ctx, connection, method, messages)
	}
	told.Code, told.Message = status.Code(err).String(), status.Convert(err).Message()
	told.Header, told.Trailer = header.Get("x-header"), trailer.Get("x-trailer")
	check(json.NewEncoder(os.Stdout).Encode(told))
}

// Sends one message after the other, each when the answer to the one before is here. `Stream` then says that there are
// no more; `Open` does not.
func converse(ctx context.Context, connection *grpc.ClientConn, method string, messages []string) (
	received []string, header, trailer metadata.MD, err error,
) {
	description := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := connection.NewStream(ctx, description, "/"+service+"/Stream")
	if err != nil {
		return nil, nil, nil, err
	}
	receive := func() error {
		answer := new(message)
		if err := stream.RecvMsg(answer); err != nil {
			return err
		}
		if len(answer.Value) < 100 {
			received = append(received, answer.Value)
		}
		return nil
	}
	for _, text := range messages {
		if err = stream.SendMsg(wrapperspb.String(text)); err != nil {
			break
		}
		if text != "many" && text != "end" && text != "abort" && text != "wait" {
			if err = receive(); err != nil {
				break
			}
		}
	}
	if method == "Stream" {
		_ = stream.CloseSend()
	}
	for err == nil {
		err = receive()
	}
	if errors.Is(err, io.EOF) {
		// Of a call that failed while it was being sent, only receiving says why.
		if err = stream.RecvMsg(new(message)); errors.Is(err, io.EOF) {
			err = nil
		}
	}
	header, _ = stream.Header()
	return received, header, stream.Trailer(), err
}

// One stream after the other, each on a connection of its own.
func soak(address, folder string) {
	stopped := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stopped)
	}()
	for {
		select {
		case <-stopped:
			return
		default:
		}
		code, err := echoes(address, folder)
		if err != nil {
			fmt.Printf("1 |%s|%v\n", code, err)
		} else {
			fmt.Printf("1 |%s|\n", code)
		}
	}
}

// Sends larger and larger messages on one stream, and wants each of them back.
func echoes(address, folder string) (codes.Code, error) {
	connection, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(secured(address, folder)))
	check(err)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	description := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := connection.NewStream(ctx, description, "/"+service+"/Stream")
	if err != nil {
		return status.Code(err), err
	}
	for size := range 60 {
		sent, got := wrapperspb.String(strings.Repeat("x", 100+1000*size)), new(message)
		// What sending fails with, receiving explains.
		_ = stream.SendMsg(sent)
		if err := stream.RecvMsg(got); err != nil {
			return status.Code(err), err
		}
		if got.Value != sent.Value {
			return codes.DataLoss, fmt.Errorf("%d bytes came back", len(got.Value))
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := stream.CloseSend(); err != nil {
		return status.Code(err), err
	}
	if err := stream.RecvMsg(new(message)); !errors.Is(err, io.EOF) {
		return status.Code(err), fmt.Errorf("no end: %w", err)
	}
	return codes.OK, nil
}

// The server has the certificate of its name, or of `localhost` where the address is a number.
func secured(address, folder string) credentials.TransportCredentials {
	if folder == "" {
		return insecure.NewCredentials()
	}
	folder, certificate, isNamed := strings.Cut(folder, "=")
	if !isNamed {
		certificate = "billing"
	}
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(folder + "/ca.pem")
	check(err)
	roots.AppendCertsFromPEM(pem)
	pair, err := tls.LoadX509KeyPair(folder+"/"+certificate+".pem", folder+"/"+certificate+".key")
	check(err)
	name, _, err := net.SplitHostPort(address)
	check(err)
	if net.ParseIP(name) != nil {
		name = "localhost"
	}
	return credentials.NewTLS(&tls.Config{
		RootCAs: roots, Certificates: []tls.Certificate{pair}, ServerName: name, MinVersion: tls.VersionTLS12,
	})
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
