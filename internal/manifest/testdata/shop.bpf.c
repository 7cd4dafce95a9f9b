// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What the tests of manifests refer to: tagged and untagged maps, a stream, an iterator, hooks of several kinds.
// clang -O2 -g -target bpfel -c shop.bpf.c -o shop.bpf.o
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef u64 kaon_workload_t;
typedef u32 kaon_ipv4_t;

#define SEC(name) __attribute__((section(name), used))
#define TAG(text) __attribute__((btf_decl_tag("kaon:" text)))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) val *name

enum state { STATE_IDLE, STATE_BUSY, STATE_BROKEN };

struct request_key {
	kaon_workload_t workload;
	kaon_ipv4_t client;
	u16 code;
	u16 shard;
};

// A tagged counter.
TAG("type=counter") TAG("help=Requests served.") struct {
	__uint(type, 1);
	__uint(max_entries, 1000);
	__type(key, struct request_key);
	__type(value, u64);
} requests SEC(".maps");

// A tagged native histogram: schema 2, 2^-4 to 2^4 seconds.
struct duration {
	u64 sum;
	u64 slots[34];
} TAG("histogram=ns,2,-4,4");

TAG("type=histogram") TAG("help=Time to serve.") struct {
	__uint(type, 1);
	__uint(max_entries, 1000);
	__type(key, struct request_key);
	__type(value, struct duration);
} serve_seconds SEC(".maps");

// A tagged histogram with explicit bounds.
struct sizes {
	u64 sum;
	u64 slots[4];
} TAG("bounds=100,1000,10000");

TAG("type=histogram") TAG("help=Sizes of answers.") TAG("unit=bytes") struct {
	__uint(type, 1);
	__uint(max_entries, 1000);
	__type(key, struct request_key);
	__type(value, struct sizes);
} answer_bytes SEC(".maps");

// An untagged per-CPU map with several members.
struct traffic {
	u64 packets;
	u64 bytes;
	enum state state;
	u32 pad;
	struct {
		u64 count;
		u64 sum;
	} latency;
	u64 total;
	u64 slots[5];
};

struct traffic_key {
	u32 address;
	char name[16];
	u8 kind;
	u8 pad[3];
};

struct {
	__uint(type, 5);
	__uint(max_entries, 1000);
	__type(key, struct traffic_key);
	__type(value, struct traffic);
} traffic SEC(".maps");

// Untagged, and without types.
struct {
	__uint(type, 1);
	__uint(max_entries, 1000);
	__uint(key_size, 8);
	__uint(value_size, 16);
} opaque SEC(".maps");

struct {
	__uint(type, 2);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} single SEC(".maps");

struct {
	__uint(type, 22);
	__uint(max_entries, 10);
	__uint(value_size, 8);
} waiting SEC(".maps");

struct event {
	u64 size;
	u32 uid;
	char comm[16];
};
struct event event_unused;

TAG("stream") TAG("record=event") TAG("help=What happened.") struct {
	__uint(type, 27);
	__uint(max_entries, 4096);
} events SEC(".maps");

TAG("param") TAG("help=Shortest time that counts.") TAG("unit=ns") const volatile u64 minimum = 1000000;
TAG("param") TAG("help=Count errors only.") const volatile _Bool errors;

SEC("tp_btf/sched_switch") int on_switch(void *ctx)
{
	return minimum > 5 && errors;
}

SEC("xdp") int on_packet(void *ctx)
{
	return 2;
}

SEC("iter/task") int each_task(void *ctx)
{
	return 0;
}

SEC("uprobe//bin/bash:readline") int on_readline(void *ctx)
{
	return 0;
}

SEC("cgroup_skb/ingress") int on_ingress(void *ctx)
{
	return 1;
}

TAG("program=What a shop does.") char _license[] SEC("license") = "Dual BSD/GPL";
