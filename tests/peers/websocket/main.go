// A WebSocket server and client for the tests, on a library that nobody here wrote.
//
//	websocket serve [ADDRESS]        echoes there, or on a free port, and tells its address
//	websocket talk URL CERTIFICATE   every kind of message there and back; ca.pem and CERTIFICATE.pem/.key in the folder
//	websocket idle URL CERTIFICATE   opens, says "open", and waits for the end, which it tells
//	websocket soak URL CERTIFICATE   streams until its input ends, a line for each as curl's --write-out makes them
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// More than any message here.
const limit = 32 << 20

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 1 && arguments[0] == "serve":
		return serve("127.0.0.1:0")
	case len(arguments) == 2 && arguments[0] == "serve":
		return serve(arguments[1])
	}
	if len(arguments) != 3 {
		return errors.New("usage: websocket serve [ADDRESS] | talk URL CERTIFICATE | idle URL CERTIFICATE | soak URL CERTIFICATE")
	}
	client, err := newClient(arguments[1], arguments[2])
	if err != nil {
		return err
	}
	switch arguments[0] {
	case "talk":
		return client.talk()
	case "idle":
		return client.idle()
	case "soak":
		return client.soak()
	}
	return fmt.Errorf("what is %s?", arguments[0])
}

func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	return http.Serve(listener, http.HandlerFunc(echo))
}

func echo(response http.ResponseWriter, request *http.Request) {
	options := websocket.AcceptOptions{Subprotocols: []string{"chat"}, CompressionMode: websocket.CompressionContextTakeover}
	connection, err := websocket.Accept(response, request, &options)
	if err != nil {
		return
	}
	defer connection.CloseNow()
	connection.SetReadLimit(limit)
	for {
		kind, message, err := connection.Read(request.Context())
		if err != nil {
			return
		}
		if string(message) == "close" {
			connection.Close(4001, "as asked")
			return
		}
		if err := connection.Write(request.Context(), kind, message); err != nil {
			return
		}
	}
}

type client struct {
	url  string
	http *http.Client
	// Connections that were made.
	connects atomic.Int64
}

func newClient(url, certificate string) (*client, error) {
	made := &client{url: url}
	roots, err := os.ReadFile("ca.pem")
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(certificate+".pem", certificate+".key")
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		made.connects.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	settings := &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}
	made.http = &http.Client{Transport: &http.Transport{DialContext: dial, TLSClientConfig: settings}}
	return made, nil
}

func (client *client) open(ctx context.Context, mode websocket.CompressionMode) (*websocket.Conn, error) {
	options := websocket.DialOptions{HTTPClient: client.http, Subprotocols: []string{"chat"}, CompressionMode: mode}
	connection, response, err := websocket.Dial(ctx, client.url, &options)
	if err != nil {
		if response != nil {
			return nil, fmt.Errorf("status %d %s", response.StatusCode, response.Header.Get("postern-reason"))
		}
		return nil, err
	}
	connection.SetReadLimit(limit)
	return connection, nil
}

// Every kind of message there and back, then a close that the server asks for.
func (client *client) talk() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, mode := range []websocket.CompressionMode{websocket.CompressionDisabled, websocket.CompressionContextTakeover} {
		connection, err := client.open(ctx, mode)
		if err != nil {
			return err
		}
		if connection.Subprotocol() != "chat" {
			return fmt.Errorf("subprotocol %q", connection.Subprotocol())
		}
		for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
			for _, pieces := range []int{1, 3} {
				if err := exchange(ctx, connection, size, pieces); err != nil {
					return fmt.Errorf("%d bytes in %d pieces: %w", size, pieces, err)
				}
			}
		}
		if mode == websocket.CompressionDisabled {
			if err := flood(ctx, connection); err != nil {
				return fmt.Errorf("flood: %w", err)
			}
		}
		if err := ping(ctx, connection); err != nil {
			return fmt.Errorf("ping: %w", err)
		}
		if err := connection.Write(ctx, websocket.MessageText, []byte("close")); err != nil {
			return err
		}
		_, _, err = connection.Read(ctx)
		fmt.Println(int(websocket.CloseStatus(err)), connection.Subprotocol())
	}
	return nil
}

// A ping, whose answer is read among messages.
func ping(ctx context.Context, connection *websocket.Conn) error {
	pinged := make(chan error, 1)
	go func() { pinged <- connection.Ping(ctx) }()
	for {
		select {
		case err := <-pinged:
			return err
		default:
			if err := exchange(ctx, connection, 10, 1); err != nil {
				return err
			}
		}
	}
}

func exchange(ctx context.Context, connection *websocket.Conn, size, pieces int) error {
	message := bytes.Repeat([]byte("postern "), size/8+1)[:size]
	writer, err := connection.Writer(ctx, websocket.MessageText)
	if err != nil {
		return err
	}
	for piece := range pieces {
		if _, err := writer.Write(message[size*piece/pieces : size*(piece+1)/pieces]); err != nil {
			return err
		}
	}
	if err := writer.Close(); err != nil {
		return err
	}
	kind, got, err := connection.Read(ctx)
	if err != nil {
		return err
	}
	if kind != websocket.MessageText || !bytes.Equal(got, message) {
		return fmt.Errorf("%d bytes of kind %v came back", len(got), kind)
	}
	return nil
}

// Writes until the writer is stuck, while nothing is read: then everything that was begun comes back. How much that takes
// is the kernel's to decide, whose buffers on the way grow.
func flood(ctx context.Context, connection *websocket.Conn) error {
	const most = 512
	message := bytes.Repeat([]byte{0, 255, 7, 1}, 1<<18)
	var lock sync.Mutex
	begun, isEnough := 0, false
	begin := func() bool {
		lock.Lock()
		defer lock.Unlock()
		if isEnough || begun == most {
			return false
		}
		begun++
		return true
	}
	end := func() int {
		lock.Lock()
		defer lock.Unlock()
		isEnough = true
		return begun
	}
	var sent atomic.Int64
	failed := make(chan error, 1)
	go func() {
		for begin() {
			if err := connection.Write(ctx, websocket.MessageBinary, message); err != nil {
				failed <- err
				return
			}
			sent.Add(1)
		}
		failed <- nil
	}()
	// Stuck is who has not moved for a while.
	for before := int64(-1); before != sent.Load(); time.Sleep(300 * time.Millisecond) {
		before = sent.Load()
	}
	count := end()
	if sent.Load() == most {
		return errors.New("nobody held the writer back")
	}
	for range count {
		_, got, err := connection.Read(ctx)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, message) {
			return fmt.Errorf("%d bytes came back otherwise", len(got))
		}
	}
	return <-failed
}

func (client *client) idle() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	connection, err := client.open(ctx, websocket.CompressionDisabled)
	if err != nil {
		return err
	}
	fmt.Println("open")
	_, _, err = connection.Read(ctx)
	var closed websocket.CloseError
	switch {
	case errors.As(err, &closed):
		fmt.Println("closed", int(closed.Code))
	case ctx.Err() != nil:
		fmt.Println("still open")
	default:
		fmt.Println("broken")
	}
	return nil
}

// Streams of some seconds, one after the other.
func (client *client) soak() error {
	var stopped atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, bufio.NewReader(os.Stdin))
		stopped.Store(true)
	}()
	for !stopped.Load() {
		before := client.connects.Load()
		err := client.stream(&stopped)
		if err != nil {
			fmt.Printf("%d |000|%v\n", client.connects.Load()-before, err)
		} else {
			fmt.Printf("%d |101|\n", client.connects.Load()-before)
		}
	}
	return nil
}

func (client *client) stream(stopped *atomic.Bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	connection, err := client.open(ctx, websocket.CompressionDisabled)
	if err != nil {
		return err
	}
	for size := 0; size < 60 && !stopped.Load(); size++ {
		if err := exchange(ctx, connection, size*1000, 1+size%3); err != nil {
			connection.CloseNow()
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return connection.Close(websocket.StatusNormalClosure, "")
}
