// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Kernel timers: how many expire and how late, by the function that they call.");

enum kind {
	KIND_HRTIMER,
	KIND_WHEEL,
};

struct key {
	kaon_ksym_t function;
	enum kind kind;
	KAON_PAD(4);
};

KAON_HISTOGRAM_TYPE(lateness, ns, 2, -20, 6);

struct timer {
	__u64 expirations KAON_NAME("timer_expirations_total") KAON_TYPE(counter) KAON_HELP("Timers that expired.");
	struct lateness latency KAON_NAME("timer_latency_seconds") KAON_TYPE(histogram) KAON_UNIT("seconds")
		KAON_HELP("Time from when a timer was to expire until it did.");
};

KAON_METRICS_MAP(timers, HASH, struct key, struct timer, 1000) KAON_LIMIT(1000);

static __always_inline struct timer *count(const void *function, enum kind kind)
{
	struct key key = { .function = (__u64)function, .kind = kind };
	struct timer *timer = kaon_entry(&timers, &key);

	if (timer)
		kaon_add_at(&timer->expirations, 1);
	return timer;
}

/* now: a pointer to the time, or the time itself. */
static __always_inline int hrtimer_expired(const void *function, __s64 expires, __s64 now)
{
	struct timer *timer = count(function, KIND_HRTIMER);

	if (!timer)
		return 0;
	if (now < 0 && bpf_probe_read_kernel(&now, sizeof(now), (void *)now))
		return 0;
	/* The time after which it is late: programs allow some slack. */
	now -= expires;
	kaon_observe_at(&timer->latency, now > 0 ? now : 0);
	return 0;
}

SEC("tp_btf/hrtimer_expire_entry") KAON_ALTERNATIVE(hrtimer, 1)
int BPF_PROG(hrtimer_expire_entry, struct hrtimer *hrtimer, __s64 now)
{
	return hrtimer_expired(hrtimer->function, hrtimer->node.expires, now);
}

/* Linux 5.10 refuses the pointer to a number. */
SEC("raw_tp/hrtimer_expire_entry") KAON_ALTERNATIVE(hrtimer, 2)
int BPF_PROG(hrtimer_expire_entry_raw, struct hrtimer *hrtimer, __s64 now)
{
	return hrtimer_expired(BPF_CORE_READ(hrtimer, function), BPF_CORE_READ(hrtimer, node.expires), now);
}

/*
 * The length of a jiffy, in ns, is no secret, but programs are not told. It is found from the time that
 * some of them take.
 */
#define SOME 64
#define MANY 2048
static volatile __u64 jiffy, first_jiffies, first_time;

static __always_inline bool is_near(__u64 a, __u64 b)
{
	return a > b - b / 64 && a < b + b / 64;
}

static __always_inline __u64 measure_jiffy(__u64 jiffies)
{
	__u64 now = kaon_now(), begin = first_jiffies, mean;

	if (!begin) {
		first_time = now;
		first_jiffies = jiffies;
		return 0;
	}
	if (jiffies - begin < SOME)
		return 0;
	mean = (now - first_time) / (jiffies - begin);
	/* CONFIG_HZ is one of these, with rare exceptions. */
	if (is_near(mean, 1000000))
		mean = 1000000;
	else if (is_near(mean, 3333333))
		mean = 3333333;
	else if (is_near(mean, 4000000))
		mean = 4000000;
	else if (is_near(mean, 10000000))
		mean = 10000000;
	else if (jiffies - begin < MANY)
		return 0;
	jiffy = mean;
	return mean;
}

SEC("tp_btf/timer_expire_entry")
int BPF_PROG(timer_expire_entry, struct timer_list *wheel)
{
	struct timer *timer = count(wheel->function, KIND_WHEEL);
	__u64 jiffies = bpf_jiffies64(), length = jiffy;
	__s64 late = jiffies - wheel->expires;

	if (!length)
		length = measure_jiffy(jiffies);
	if (timer && length)
		kaon_observe_at(&timer->latency, late > 0 ? late * length : 0);
	return 0;
}
