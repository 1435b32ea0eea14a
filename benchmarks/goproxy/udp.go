package main

import (
	"log"
	"net"
	"sync"
	"time"
)

// maxDatagram is the maximum size that the old mode read.
const maxDatagram = 4096

func listenUDP(s *service) (*net.UDPConn, error) {
	address, err := net.ResolveUDPAddr("udp4", "0.0.0.0:"+s.port)
	if err != nil {
		return nil, err
	}
	return net.ListenUDP("udp4", address)
}

// clients contains one connected socket per client address.
type clients struct {
	mu    sync.Mutex
	conns map[string]net.Conn
}

func serveUDP(socket *net.UDPConn, s *service, idle time.Duration) {
	known := &clients{conns: map[string]net.Conn{}}
	var buffer [maxDatagram]byte
	for {
		count, client, err := socket.ReadFrom(buffer[:])
		if err != nil {
			log.Fatal("read failed: ", err)
		}
		conn, err := known.get(client, socket, s, idle)
		if err != nil {
			continue
		}
		if _, err := conn.Write(buffer[:count]); err != nil {
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(idle))
	}
}

// get returns the client's socket; it opens one if there is none.
func (c *clients) get(client net.Addr, socket *net.UDPConn, s *service, idle time.Duration) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := client.String()
	if conn, found := c.conns[key]; found {
		return conn, nil
	}
	conn, err := net.Dial("udp4", s.next())
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(idle))
	c.conns[key] = conn
	go c.answer(client, key, conn, socket, idle)
	return conn, nil
}

// answer forwards an endpoint's datagrams until it is idle for too long.
func (c *clients) answer(client net.Addr, key string, conn net.Conn, socket *net.UDPConn, idle time.Duration) {
	defer conn.Close()
	var buffer [maxDatagram]byte
	for {
		count, err := conn.Read(buffer[:])
		if err != nil {
			break
		}
		_ = conn.SetDeadline(time.Now().Add(idle))
		if _, err := socket.WriteTo(buffer[:count], client); err != nil {
			break
		}
	}
	c.mu.Lock()
	delete(c.conns, key)
	c.mu.Unlock()
}
