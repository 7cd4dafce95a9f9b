// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Every mistake that can be found without a kernel.", KAON_NAME("Wrong Name"));

struct with_pointer {
	void *pointer;
};
struct with_union {
	__u64 a;
	union {
		__u32 b;
		__u32 c;
	} u;
};
struct with_array {
	__u32 many[4];
};
struct twice {
	__u32 a KAON_LABEL("same");
	__u32 b KAON_LABEL("same");
};
struct reserved {
	__u64 le;
	__u64 _under;
};
struct plain {
	__u64 a, b;
};

KAON_METRIC_MAP(pointer, HASH, struct with_pointer, __u64, 10, KAON_TYPE(counter) KAON_HELP("H."));
KAON_METRIC_MAP(unions, HASH, struct with_union, __u64, 10, KAON_TYPE(counter) KAON_HELP("H."));
KAON_METRIC_MAP(array, HASH, struct with_array, __u64, 10, KAON_TYPE(counter) KAON_HELP("H."));
KAON_METRIC_MAP(doubled, HASH, struct twice, __u64, 10, KAON_TYPE(counter) KAON_HELP("H."));
KAON_METRIC_MAP(reserve, HASH, struct reserved, __u64, 10, KAON_TYPE(counter) KAON_HELP("H."));
KAON_METRIC_MAP(typo, HASH, struct plain, __u64, 10, KAON_TAG("tpye=counter") KAON_HELP("H."));
KAON_METRIC_MAP(colour, HASH, struct plain, __u64, 10, KAON_TYPE(colour) KAON_HELP("H."));
KAON_METRIC_MAP(structural, HASH, struct plain, struct plain, 10, KAON_TYPE(counter) KAON_HELP("H."));
KAON_METRIC_MAP(nothing, HASH, struct plain, struct plain, 10, KAON_HELP("H."));
KAON_METRIC_MAP(limited, HASH, struct plain, __u64, 10, KAON_TYPE(counter) KAON_HELP("H.") KAON_TAG("limit=many"));
KAON_METRIC_MAP(scaled, HASH, struct plain, __u64, 10, KAON_TYPE(counter) KAON_HELP("H.") KAON_TAG("scale=1:2"));
KAON_METRIC_MAP(number, HASH, struct plain, __u64, 10, KAON_TYPE(histogram) KAON_HELP("H."));
KAON_METRIC_MAP(state, HASH, struct plain, __u64, 10, KAON_TYPE(stateset) KAON_HELP("H."));
KAON_METRIC_MAP(conditional, HASH, struct plain, __u64, 10, KAON_TYPE(counter) KAON_HELP("H.") KAON_WHEN(absent));
KAON_METRIC_MAP(collision, HASH, struct plain, __u64, 10, KAON_TYPE(counter) KAON_HELP("H.") KAON_NAME("same_total"));
KAON_METRIC_MAP(collided, HASH, struct plain, __u64, 10, KAON_TYPE(counter) KAON_HELP("H.") KAON_NAME("same_total"));
KAON_ITERATOR_GAUGE(iterated, struct plain, not_an_iterator, "H.");
KAON_ITERATOR_GAUGE(iterated_again, struct plain, not_an_iterator, "H.");

__u32 variable KAON_TAG("param") KAON_TAG("help=H.") = 1;

SEC("nowhere/at_all")
int lost(void *ctx)
{
	return variable;
}

SEC("kprobe")
int not_an_iterator(void *ctx)
{
	return 0;
}

SEC("tp_btf/x") KAON_TAG("alternative=group")
int ranked(void *ctx)
{
	return 0;
}
