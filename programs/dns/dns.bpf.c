// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("DNS queries of workloads: types, results, latency, and what was never answered.");

KAON_PARAM(bool, names, false, "Tell the names that are asked for apart, up to 128 bytes, in lower case.");
KAON_PARAM(__u16, port, 53, "The port of name servers.");

#define ALLOW 1
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define FRAGMENT_OFFSET 0x1fff

#define RESPONSE_BIT 0x80	/* of the third byte of a message */
#define OPERATION_BITS 0x78
#define RESULT_BITS 0x0f	/* of the fourth */

#define WIRE_NAME 255		/* bytes that a name can have in a message, its end included */
#define QUESTION 511		/* more than that, all bits are ones: an index in it */
#define NAME 128		/* of these as a label */
#define PENDING 8		/* queries that a socket can wait for at a time */

enum query_type {
	QUERY_TYPE_A = 1,
	QUERY_TYPE_NS = 2,
	QUERY_TYPE_CNAME = 5,
	QUERY_TYPE_SOA = 6,
	QUERY_TYPE_PTR = 12,
	QUERY_TYPE_MX = 15,
	QUERY_TYPE_TXT = 16,
	QUERY_TYPE_AAAA = 28,
	QUERY_TYPE_SRV = 33,
	QUERY_TYPE_NAPTR = 35,
	QUERY_TYPE_DS = 43,
	QUERY_TYPE_DNSKEY = 48,
	QUERY_TYPE_SVCB = 64,
	QUERY_TYPE_HTTPS = 65,
	QUERY_TYPE_ANY = 255,
	QUERY_TYPE_OTHER = 65536,
};

enum rcode {
	RCODE_NOERROR,
	RCODE_FORMERR,
	RCODE_SERVFAIL,
	RCODE_NXDOMAIN,
	RCODE_NOTIMP,
	RCODE_REFUSED,
	RCODE_YXDOMAIN,
	RCODE_YXRRSET,
	RCODE_NXRRSET,
	RCODE_NOTAUTH,
	RCODE_NOTZONE,
};

enum problem {
	PROBLEM_MALFORMED_QUERY,
	PROBLEM_MALFORMED_RESPONSE,
	PROBLEM_UNEXPECTED_RESPONSE,
};

struct query_key {
	kaon_workload_t workload;
	enum query_type type;
	kaon_protocol_t protocol;
	KAON_PAD(3);
	char name[NAME];
};

struct query {
	__u64 queries KAON_NAME("dns_queries_total") KAON_TYPE(counter) KAON_HELP("DNS queries that were sent, repeated ones included.");
	__u64 unanswered KAON_NAME("dns_unanswered_total") KAON_TYPE(counter)
		KAON_HELP("DNS queries that were repeated, or whose socket was closed, before there was a response.");
};

struct response_key {
	kaon_workload_t workload;
	enum query_type type;
	enum rcode rcode;
	kaon_protocol_t protocol;
	KAON_PAD(7);
	char name[NAME];
};

struct latency_key {
	kaon_workload_t workload;
	enum query_type type;
	enum rcode rcode;
};

struct problem_key {
	kaon_workload_t workload;
	enum problem problem;
	kaon_protocol_t protocol;
	KAON_PAD(3);
};

KAON_SOCKET_WORKLOAD();
KAON_METRICS_MAP(dns, HASH, struct query_key, struct query, 2000) KAON_LIMIT(2000);
KAON_COUNTER_MAP(dns_responses_total, HASH, struct response_key, 2000, "Responses to DNS queries, by result.") KAON_LIMIT(2000);
KAON_HISTOGRAM_MAP(dns_latency_seconds, HASH, struct latency_key, 2000, ns, 2, -20, 6,
	"Time from a DNS query to its response.") KAON_UNIT("seconds") KAON_LIMIT(2000);
KAON_COUNTER_MAP(dns_problems_total, HASH, struct problem_key, 1000,
	"Messages on the port of DNS that are no queries or responses, and responses that nobody waited for.") KAON_LIMIT(1000);

struct pending {
	__u64 time;		/* 0: free */
	__u64 workload;
	__u32 type;
	__u16 id;		/* as in the message */
	__u8 protocol;
	__u8 pad;
	char name[NAME];
};

struct search {
	volatile __u64 rank;	/* 0: the same id; 1: free; else when it was sent */
	volatile __u64 which;
};

struct client {
	struct pending pending[PENDING];
	struct search sent, received;
	volatile __u64 off;	/* in the question */
	/* The question of the latest query. What follows its first byte is aligned. */
	__u8 pad[7];
	__u8 question[QUESTION + 1 + 8];
};

/* What sockets wait for. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct client);
} clients SEC(".maps");

struct message {
	__u32 at, length;	/* in the packet; length 0: none */
	__u8 protocol;
	__u16 id;
	__u8 flags[2];
	__be16 questions;
};

/* Finds a message for or from the port. false: there is none. */
static __always_inline bool find(struct __sk_buff *skb, bool sent, struct message *m)
{
	__u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end, *transport;
	__be16 size;

	if (skb->protocol == bpf_htons(ETHERTYPE_IPV4)) {
		if (data + 20 > end || *(__be16 *)(data + 6) & bpf_htons(FRAGMENT_OFFSET))
			return false;
		m->protocol = data[9];
		m->at = (data[0] & 15) * 4;
	} else if (skb->protocol == bpf_htons(ETHERTYPE_IPV6)) {
		if (data + 40 > end)
			return false;
		m->protocol = data[6];
		m->at = 40;
	} else {
		return false;
	}
	if (m->protocol != PROTOCOL_UDP && m->protocol != PROTOCOL_TCP)
		return false;
	transport = data + m->at;
	if (transport + 8 > end || *(__be16 *)(transport + (sent ? 2 : 0)) != bpf_htons(port))
		return false;
	if (m->protocol == PROTOCOL_UDP) {
		m->at += 8;
		m->length = skb->len - m->at;
		return true;
	}
	/* In a stream, a message that a segment begins with. */
	if (transport + 20 > end)
		return false;
	m->at += (transport[12] >> 4) * 4;
	if (bpf_skb_load_bytes(skb, m->at, &size, sizeof(size)))
		return false;
	m->at += sizeof(size);
	m->length = bpf_ntohs(size);
	return true;
}

static __always_inline bool read_header(struct __sk_buff *skb, struct message *m)
{
	__u8 header[12];

	if (m->length < sizeof(header) || bpf_skb_load_bytes(skb, m->at, header, sizeof(header)))
		return false;
	m->id = header[0] << 8 | header[1];
	m->flags[0] = header[2];
	m->flags[1] = header[3];
	m->questions = header[4] << 8 | header[5];
	return true;
}

static __always_inline void problem(kaon_workload_t workload, struct message *m, enum problem what)
{
	struct problem_key key = {.workload = workload, .problem = what, .protocol = m->protocol};

	kaon_increment(&dns_problems_total, &key);
}

static __always_inline struct query *query_of(struct pending *p)
{
	struct query_key key = {.workload = p->workload, .type = p->type, .protocol = p->protocol};

	if (names)
		__builtin_memcpy(key.name, p->name, sizeof(key.name));
	return kaon_entry(&dns, &key);
}

static __always_inline void unanswered(struct pending *p)
{
	struct query *query = query_of(p);

	if (query)
		kaon_add_at(&query->unanswered, 1);
}

static __always_inline __u32 type_of(__u32 type)
{
	switch (type) {
	case QUERY_TYPE_A:
	case QUERY_TYPE_NS:
	case QUERY_TYPE_CNAME:
	case QUERY_TYPE_SOA:
	case QUERY_TYPE_PTR:
	case QUERY_TYPE_MX:
	case QUERY_TYPE_TXT:
	case QUERY_TYPE_AAAA:
	case QUERY_TYPE_SRV:
	case QUERY_TYPE_NAPTR:
	case QUERY_TYPE_DS:
	case QUERY_TYPE_DNSKEY:
	case QUERY_TYPE_SVCB:
	case QUERY_TYPE_HTTPS:
	case QUERY_TYPE_ANY:
		return type;
	}
	return QUERY_TYPE_OTHER;
}

/* Bytes 8 at a time: A-Z become a-z. */
static __always_inline __u64 lower(__u64 x)
{
	const __u64 ones = 0x0101010101010101ULL;
	__u64 seven = x & 0x7f * ones;
	__u64 upper = (seven + (0x80 - 'A') * ones) & ~(seven + (0x7f - 'Z') * ones) & ~x & 0x80 * ones;

	return x | upper >> 2;
}

/*
 * Reads the question of a query: its name, of which the length is returned, and its type. -1: malformed. With `names` the
 * lengths between its parts become dots in place, so that the name stands behind the first.
 */
static __always_inline int read_question(struct __sk_buff *skb, struct message *m, struct client *client, __u32 *type)
{
	__u32 size = m->length - 12, off = 0, part = 0;

	if (m->questions != 1 || size > m->length)
		return -1;
	if (size > WIRE_NAME + 4)
		size = WIRE_NAME + 4;
	kaon_opaque(size);
	if (size < 5 || size > WIRE_NAME + 4)
		return -1;
	if (bpf_skb_load_bytes(skb, m->at + 12, client->question, size))
		return -1;
	client->off = 0;
	for (int i = 0; i < WIRE_NAME / 2 + 1; i++) {
		part = client->question[off];
		if (!part || part > 63)
			break;
		if (names && off)
			client->question[off] = '.';
		off += part + 1;
		/* From memory it is the same number in each round to the verifier, which so looks at what follows the loop once. */
		client->off = off;
		off = client->off & QUESTION;
	}
	off = client->off & QUESTION;
	if (part || off + 5 > size)
		return -1;
	*type = type_of(client->question[off + 1] << 8 | client->question[off + 2]);
	return off ? off - 1 : 0;
}

static __always_inline void copy_name(struct client *client, struct pending *p, __u32 length)
{
	__u64 *from = (void *)&client->question[1], *to = (void *)p->name;

	if (!length) { /* the root */
		client->question[1] = '.';
		length = 1;
	}
	for (__u32 i = 0; i < NAME / 8; i++) {
		__u64 word = lower(from[i]);

		if (length < 8 * i)
			word = 0;
		else if (length < 8 * i + 8)
			word &= (1ULL << (length - 8 * i) * 8) - 1;
		to[i] = word;
	}
}

/*
 * Which of the pending queries has the id; else the one that is free or the oldest. What was found so
 * far is kept in memory of which the verifier knows nothing: in registers it would follow every possibility.
 */
static __always_inline struct pending *search(struct client *client, struct search *search, __u16 id, bool *found)
{
	search->rank = ~0ULL;
	search->which = 0;
	for (__u32 i = 0; i < PENDING; i++) {
		__u64 rank = client->pending[i].time;

		if (!rank)
			rank = 1;
		else if (client->pending[i].id == id)
			rank = 0;
		if (rank < search->rank) {
			search->rank = rank;
			search->which = i;
		}
	}
	*found = !search->rank;
	return &client->pending[search->which & (PENDING - 1)];
}

SEC("cgroup_skb/egress")
int message_sent(struct __sk_buff *skb)
{
	struct message m = {};
	struct client *client;
	struct pending *p;
	struct query *query;
	struct bpf_sock *sk;
	__u64 workload;
	bool repeated;
	__u32 type = 0;
	int length;

	if (!find(skb, true, &m) || !kaon_socket_in_scope(skb))
		return ALLOW;
	sk = skb->sk;
	if (!sk)
		return ALLOW;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return ALLOW;
	workload = kaon_socket_workload(skb);
	if (!read_header(skb, &m)) {
		if (m.protocol == PROTOCOL_UDP)
			problem(workload, &m, PROBLEM_MALFORMED_QUERY);
		return ALLOW;
	}
	/* Others than queries: responses of servers, notifications, updates. */
	if (m.flags[0] & (RESPONSE_BIT | OPERATION_BITS))
		return ALLOW;
	client = bpf_sk_storage_get(&clients, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!client)
		return ALLOW;
	length = read_question(skb, &m, client, &type);
	if (length < 0) {
		if (m.protocol == PROTOCOL_UDP)
			problem(workload, &m, PROBLEM_MALFORMED_QUERY);
		return ALLOW;
	}
	p = search(client, &client->sent, m.id, &repeated);
	/* A segment that TCP sends again is no new query. */
	if (repeated && m.protocol == PROTOCOL_TCP)
		return ALLOW;
	if (p->time)
		unanswered(p);
	p->time = kaon_now();
	p->workload = workload;
	p->type = type;
	p->id = m.id;
	p->protocol = m.protocol;
	if (names)
		copy_name(client, p, length);
	query = query_of(p);
	if (query)
		kaon_add_at(&query->queries, 1);
	return ALLOW;
}

SEC("cgroup_skb/ingress")
int message_received(struct __sk_buff *skb)
{
	struct response_key key = {};
	struct latency_key latency = {};
	struct message m = {};
	struct client *client;
	struct pending *p;
	struct bpf_sock *sk;
	bool found;
	__u64 time;

	if (!find(skb, false, &m))
		return ALLOW;
	sk = skb->sk;
	if (!sk)
		return ALLOW;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return ALLOW;
	client = bpf_sk_storage_get(&clients, sk, 0, 0);
	if (!client)
		return ALLOW; /* it never asked */
	if (!read_header(skb, &m) || !(m.flags[0] & RESPONSE_BIT)) {
		if (m.protocol == PROTOCOL_UDP)
			problem(kaon_socket_workload(skb), &m, PROBLEM_MALFORMED_RESPONSE);
		return ALLOW;
	}
	p = search(client, &client->received, m.id, &found);
	time = p->time;
	if (!found || !time) {
		if (m.protocol == PROTOCOL_UDP)
			problem(kaon_socket_workload(skb), &m, PROBLEM_UNEXPECTED_RESPONSE);
		return ALLOW;
	}
	p->time = 0;
	key.workload = latency.workload = p->workload;
	key.type = latency.type = p->type;
	key.rcode = latency.rcode = m.flags[1] & RESULT_BITS;
	key.protocol = m.protocol;
	if (names)
		__builtin_memcpy(key.name, p->name, sizeof(key.name));
	kaon_increment(&dns_responses_total, &key);
	kaon_observe_ns(&dns_latency_seconds, &latency, kaon_now() - time);
	return ALLOW;
}

SEC("cgroup/sock_release")
int socket_closed(struct bpf_sock *sk)
{
	struct client *client = bpf_sk_storage_get(&clients, sk, 0, 0);

	if (!client)
		return ALLOW;
	for (int i = 0; i < PENDING; i++) {
		struct pending *p = &client->pending[i];

		if (!p->time)
			continue;
		unanswered(p);
		p->time = 0;
	}
	return ALLOW;
}
