/* A Llama-like decoder over quantized weights, computed on the processor's vector units: one token at the speed at
   which memory gives its weights, and prompts with the same weights. The weights stay where they are mapped.

   Plain C with GCC's and Clang's vectors (other compilers do not build it, and edgevl does without). */

#if defined(_WIN32) && !defined(__clang__)
#error "for Windows by Clang alone: GCC lets wide vectors lie on a stack that is not aligned for them (its bug 54412)"
#endif

#include "decoder.h"

#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(_WIN32)
#include <windows.h>
#endif
#endif

#if defined(_WIN32)
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif

#define SHORT static inline __attribute__((always_inline))
/* one machine code wherever it is called from: the same bits */
#if defined(__clang__)
#define APART static __attribute__((noinline))
#else
#define APART static __attribute__((noinline, noclone))
#endif
typedef float Four __attribute__((vector_size(16)));
typedef int32_t Four_ints __attribute__((vector_size(16)));
typedef uint16_t Eight_pairs __attribute__((vector_size(16)));
typedef uint8_t Eight_bytes __attribute__((vector_size(8)));
/* lanes of two vectors of four */
#if defined(__clang__)
#define MIX(x, y, i, j, k, l) __builtin_shufflevector(x, y, i, j, k, l)
#else
#define MIX(x, y, i, j, k, l) __builtin_shuffle(x, y, (Four_ints){i, j, k, l})
#endif
#define LEAST 1e-35f       /* what is nearer to 0 is 0 among a token's values: 127 divided by it is to be a number */
#define MOST_HALF 65504.0f /* the greatest number of half precision: what lies beyond becomes it */

/* ---- threads ---- */

static void pause_once(void) {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

#define SPINS 4000 /* some 50 microseconds: what lies between two parts of a run, or two tokens of a quick model */

/* A run is a row of phases, and a phase a number of items. Threads take items, and wait for items that others took;
   never for a thread as such. So one that does not get a processor holds up nobody unless it stopped in the middle of
   an item, the caller's may compute a whole run alone, and one that comes late finds what is left, in this run or the
   next.

   What an item reads is read between two points: its phase begins for a thread when it has seen all items of the
   phase before as done (acquire), and ends for all when the item itself is counted as done (release). Whoever changes
   what it reads, in a later phase or, as the caller, after the run, has seen that count. So nothing of a run may be
   read or written but for an item that was taken. Without one, a thread only reads what `run_of` does. Should that be a
   later run's already, then the phases are that run's too, and it leaves.

   Numbers of runs begin anew after 2^32 of them: a thread would have to stand still for just so many, for days. */

#define ONE_RUN ((uint64_t)1 << 32)

/* the one before all, those of layers, and two of the scores */
static int n_phases(const Model* model) { return 1 + PHASES * model->n_layers + 2; }

static Run run_of(Decoder* decoder, uint64_t number, int thread) {
  return (Run){
      .decoder = decoder,
      .number = number,
      .thread = thread,
      .n_layers = atomic_load_explicit(&decoder->n_layers, memory_order_acquire),
      .n_tokens = atomic_load_explicit(&decoder->n_tokens, memory_order_acquire),
      .n_past = atomic_load_explicit(&decoder->n_past, memory_order_acquire),
      .n_scored = atomic_load_explicit(&decoder->n_scored, memory_order_acquire),
      .logits = atomic_load_explicit(&decoder->logits, memory_order_acquire),
      .phase = decoder->phases, /* has no items */
  };
}

/* Wait until all items of the phase are done, or the run is over. Waits actively, and lets others have the core after a
   while. */
static void wait_for_items(const Run* run) {
  const uint64_t wanted = run->number + (uint64_t)run->n_items;
  for (int n = 0;; n++) {
    const uint64_t done = atomic_load_explicit(&run->phase->done, memory_order_acquire);
    if (done == wanted || (done ^ wanted) >= ONE_RUN) return;
    if (n < SPINS) {
      pause_once();
    } else {
      sched_yield();
    }
  }
}

/* Go on to the next phase, of `n_items`, when all of this one are done */
static void next_phase(Run* run, int n_items) {
  wait_for_items(run);
  run->phase++;
  run->n_items = n_items;
  run->n_taken = 0;
}

/* Take an item of the phase, when the one taken before is computed; return its number, or -1 where there is none left
 */
static int take(Run* run) {
  Phase* phase = run->phase;
  uint64_t seen = atomic_load_explicit(&phase->taken, memory_order_relaxed);
  while (seen - run->number < (uint64_t)run->n_items) /* never in another run */
    if (atomic_compare_exchange_weak_explicit(&phase->taken, &seen, seen + 1, memory_order_relaxed,
                                              memory_order_relaxed)) {
      run->n_taken++;
      return (int)(seen - run->number);
    }
  if (run->n_taken) atomic_fetch_add_explicit(&phase->done, (uint64_t)run->n_taken, memory_order_release);
  return -1;
}

/* Let the threads see that there is a new run, or that there is to be none */
static void publish(Decoder* decoder, uint64_t number) {
  pthread_mutex_lock(&decoder->mutex);
  atomic_store_explicit(&decoder->number, number, memory_order_release);
  if (decoder->asleep) pthread_cond_broadcast(&decoder->woken);
  pthread_mutex_unlock(&decoder->mutex);
}

/* Begin a run through the first `n_layers` and, where there are `logits`, to the scores; what is only read for its
   items is in its place */
static Run begin(Decoder* decoder, int n_layers, int n_tokens, int n_past, int n_scored, float* logits) {
  if (decoder->n_threads > 1 && decoder->pid != getpid())
    decoder->n_threads = 1; /* threads do not come along into a forked process */
  const uint64_t number = atomic_load_explicit(&decoder->number, memory_order_relaxed) + ONE_RUN;
  for (int i = 0; i < n_phases(&decoder->model); i++) {
    atomic_store_explicit(&decoder->phases[i].taken, number, memory_order_relaxed);
    atomic_store_explicit(&decoder->phases[i].done, number, memory_order_relaxed);
  }
  /* After the phases: a late thread that sees one of these finds the phases changed, and none of its items in them. */
  atomic_store_explicit(&decoder->n_layers, n_layers, memory_order_release);
  atomic_store_explicit(&decoder->n_tokens, n_tokens, memory_order_release);
  atomic_store_explicit(&decoder->n_past, n_past, memory_order_release);
  atomic_store_explicit(&decoder->n_scored, n_scored, memory_order_release);
  atomic_store_explicit(&decoder->logits, logits, memory_order_release);
  if (decoder->n_threads > 1 && atomic_load_explicit(&decoder->n_used, memory_order_relaxed) > 1) {
    publish(decoder, number);
  } else {
    atomic_store_explicit(&decoder->number, number, memory_order_release); /* more threads may come to it yet */
  }
  return run_of(decoder, number, 0);
}

typedef struct {
  Decoder* decoder;
  int thread;
} Work;

/* Return the number of the run that a thread is to take part in; `last` if there is none after that */
static uint64_t due(Decoder* decoder, int thread, uint64_t last) {
  const int is_used = thread < atomic_load_explicit(&decoder->n_used, memory_order_relaxed) ||
                      atomic_load_explicit(&decoder->is_closing, memory_order_relaxed);
  return is_used ? atomic_load_explicit(&decoder->number, memory_order_acquire) : last;
}

static void* work(void* given) {
  Decoder* decoder = ((Work*)given)->decoder;
  const int thread = ((Work*)given)->thread;
  free(given);
  for (uint64_t last = 0;;) {
    uint64_t number = last;
    for (int n = 0; n < SPINS && number == last; n++) {
      pause_once();
      number = due(decoder, thread, last);
    }
    if (number == last) {
      pthread_mutex_lock(&decoder->mutex);
      decoder->asleep++;
      while ((number = due(decoder, thread, last)) == last) pthread_cond_wait(&decoder->woken, &decoder->mutex);
      decoder->asleep--;
      pthread_mutex_unlock(&decoder->mutex);
    }
    last = number;
    if (atomic_load_explicit(&decoder->is_closing, memory_order_relaxed)) return NULL;
    Run run = run_of(decoder, number, thread);
    decoder->forward(&run);
  }
}

/* ---- x86 with AVX-512 and VNNI ---- */

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c,prefer-vector-width=512")
#endif
#define NAME(name) name##_avx512
#define LANES 16
#define ZERO_8 128
#define N_TOGETHER 8 /* sums that registers have room for, and what a loop over them is */
#define TOGETHER(what) what(0) what(1) what(2) what(3) what(4) what(5) what(6) what(7)
typedef __m512i Bytes_avx512;
/* how much of a chunk's bytes and scales there is */
typedef struct {
  __mmask64 bytes;
  __mmask16 scales;
} Part_avx512;
SHORT Part_avx512 part_avx512(int n_bytes, int n_scales) {
  return (Part_avx512){~(__mmask64)0 >> (64 - n_bytes), (__mmask16)((1u << n_scales) - 1)};
}
SHORT __m512i load_bytes_avx512(const int8_t* from) { return _mm512_loadu_si512(from); }
SHORT __m512i repeat_avx512(const int8_t* from) { /* four values, LANES times */
  int32_t four;
  memcpy(&four, from, 4);
  return _mm512_set1_epi32(four);
}
SHORT __m512i load_part_avx512(const uint8_t* from, Part_avx512 part) {
  return _mm512_maskz_loadu_epi8(part.bytes, from);
}
/* which scale each lane takes, where `lanes` share one */
typedef __m512i Places_avx512;
SHORT Places_avx512 places_avx512(int lanes) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm512_srl_epi32(lane, _mm_cvtsi32_si128(__builtin_ctz((unsigned)lanes)));
}
SHORT __m512 fma_avx512(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); } /* a * b + c, rounded once */
SHORT Four quarter_avx512(__m512 x) { /* sums of every fourth lane */
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  return (Four)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
SHORT __m512 spread_avx512(const float* scales, Part_avx512 part, Places_avx512 places) {
  return _mm512_permutexvar_ps(places, _mm512_maskz_loadu_ps(part.scales, scales));
}
SHORT __m512i low_avx512(__m512i x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
SHORT __m512i high_avx512(__m512i x) { return _mm512_and_si512(_mm512_srli_epi16(x, 4), _mm512_set1_epi8(15)); }
typedef int32_t Ints_avx512 __attribute__((vector_size(64)));
SHORT Ints_avx512 dot_avx512(Ints_avx512 sum, __m512i weights, __m512i values) {
  return (Ints_avx512)_mm512_dpbusd_epi32((__m512i)sum, weights, values);
}
#define dot_8_avx512 dot_avx512
typedef float Wide_avx512 __attribute__((vector_size(64)));
SHORT Wide_avx512 widen_avx512(const uint16_t* from) {
  return (Wide_avx512)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from));
}
SHORT void narrow_avx512(Wide_avx512 x, uint16_t* to) {
  const __m512 most = _mm512_set1_ps(MOST_HALF), least = _mm512_set1_ps(-MOST_HALF);
  /* the second one is given where the first is no number: it is to stay so */
  const __m512 within = _mm512_min_ps(most, _mm512_max_ps(least, (__m512)x));
  _mm256_storeu_si256((__m256i*)to, _mm512_cvtps_ph(within, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

/* ---- the same with bf16: attention of many tokens rounds what it multiplies to that ---- */

/* No Mac has it, nor the VNNI below, and older compilers do not know them. */
#if !defined(__APPLE__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define HAS_NEWER 1
#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,fma,f16c,prefer-vector-width=512")
#endif
#define NAME(name) name##_avx512bf16
#define LANES 16
#define ZERO_8 128
#define N_TOGETHER 8
#define TOGETHER(what) what(0) what(1) what(2) what(3) what(4) what(5) what(6) what(7)
#define Bytes_avx512bf16 Bytes_avx512
#define Part_avx512bf16 Part_avx512
#define Places_avx512bf16 Places_avx512
#define dot_avx512bf16 dot_avx512
#define dot_8_avx512bf16 dot_8_avx512
#define part_avx512bf16 part_avx512
#define load_bytes_avx512bf16 load_bytes_avx512
#define repeat_avx512bf16 repeat_avx512
#define load_part_avx512bf16 load_part_avx512
#define places_avx512bf16 places_avx512
#define fma_avx512bf16 fma_avx512
#define quarter_avx512bf16 quarter_avx512
#define spread_avx512bf16 spread_avx512
#define low_avx512bf16 low_avx512
#define high_avx512bf16 high_avx512
#define widen_avx512bf16 widen_avx512
#define narrow_avx512bf16 narrow_avx512
#define TERMS 2
typedef uint16_t Term_avx512bf16;
SHORT void put_terms_avx512bf16(Wide_avx512 x, uint16_t* to) {
  _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh((__m512)x));
}
SHORT void put_beside_avx512bf16(const Wide_avx512* x, uint16_t* to) { /* each lane's two side by side */
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i places = _mm512_or_si512(lane, _mm512_slli_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(16)), 16));
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)x[1], (__m512)x[0]);
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(places, both));
}
SHORT Wide_avx512 add_terms_avx512bf16(Wide_avx512 sum, const uint16_t* lanes, const uint16_t* one) {
  int32_t both;
  memcpy(&both, one, sizeof both);
  return (Wide_avx512)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_loadu_si512(lanes),
                                       (__m512bh)_mm512_set1_epi32(both));
}
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
static int has_newer(unsigned feature) { /* a bit of what processors say of these */
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << feature);
}
#else
#define HAS_NEWER 0
#endif

/* ---- x86 with AVX2 ---- */

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define NAME(name) name##_avx2
#define LANES 8
#define ZERO_8 0 /* 8-bit weights are made signed */
#define N_TOGETHER 8
#define TOGETHER(what) what(0) what(1) what(2) what(3) what(4) what(5) what(6) what(7)
typedef __m256i Bytes_avx2;
/* how much of a chunk there is: bytes, and a mask of its scales */
typedef struct {
  int n_bytes;
  __m256i scales;
} Part_avx2;
SHORT __m256i numbers_avx2(void) { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
SHORT Part_avx2 part_avx2(int n_bytes, int n_scales) {
  return (Part_avx2){n_bytes, _mm256_cmpgt_epi32(_mm256_set1_epi32(n_scales), numbers_avx2())};
}
SHORT __m256i load_bytes_avx2(const int8_t* from) { return _mm256_loadu_si256((const __m256i*)from); }
SHORT __m256i repeat_avx2(const int8_t* from) {
  int32_t four;
  memcpy(&four, from, 4);
  return _mm256_set1_epi32(four);
}
SHORT __m256i load_part_avx2(const uint8_t* from, Part_avx2 part) {
  if (part.n_bytes == 32) return load_bytes_avx2((const int8_t*)from);
  int8_t bytes[32] = {0};
  memcpy(bytes, from, (size_t)part.n_bytes);
  return load_bytes_avx2(bytes);
}
typedef __m256i Places_avx2;
SHORT Places_avx2 places_avx2(int lanes) {
  return _mm256_srl_epi32(numbers_avx2(), _mm_cvtsi32_si128(__builtin_ctz((unsigned)lanes)));
}
SHORT __m256 fma_avx2(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
SHORT Four quarter_avx2(__m256 x) { return (Four)_mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)); }
SHORT __m256 spread_avx2(const float* scales, Part_avx2 part, Places_avx2 places) {
  return _mm256_permutevar8x32_ps(_mm256_maskload_ps(scales, part.scales), places);
}
SHORT __m256i low_avx2(__m256i x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
SHORT __m256i high_avx2(__m256i x) { return _mm256_and_si256(_mm256_srli_epi16(x, 4), _mm256_set1_epi8(15)); }
typedef int32_t Ints_avx2 __attribute__((vector_size(32)));
SHORT Ints_avx2 dot_avx2(Ints_avx2 sum, __m256i weights, __m256i values) {
  const __m256i pairs = _mm256_maddubs_epi16(weights, values);
  return (Ints_avx2)_mm256_add_epi32((__m256i)sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
SHORT Ints_avx2 dot_8_avx2(Ints_avx2 sum, __m256i weights, __m256i values) { /* the weights' signs go to the values */
  const __m256i sign = _mm256_xor_si256(weights, _mm256_set1_epi8((char)0x80));
  return dot_avx2(sum, _mm256_abs_epi8(sign), _mm256_sign_epi8(values, sign));
}
SHORT __m256 widen_avx2(const uint16_t* from) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from)); }
SHORT void narrow_avx2(__m256 x, uint16_t* to) {
  const __m256 most = _mm256_set1_ps(MOST_HALF), least = _mm256_set1_ps(-MOST_HALF);
  /* the second one is given where the first is no number: it is to stay so */
  const __m256 within = _mm256_min_ps(most, _mm256_max_ps(least, x));
  _mm_storeu_si128((__m128i*)to, _mm256_cvtps_ph(within, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

/* ---- x86 with AVX2 and VNNI: the same but for the dot product ---- */

#if HAS_NEWER
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avxvnni")
#endif
#define NAME(name) name##_avxvnni
#define LANES 8
#define ZERO_8 128
#define N_TOGETHER 8
#define TOGETHER(what) what(0) what(1) what(2) what(3) what(4) what(5) what(6) what(7)
#define Bytes_avxvnni Bytes_avx2
#define Part_avxvnni Part_avx2
#define Places_avxvnni Places_avx2
#define part_avxvnni part_avx2
#define load_bytes_avxvnni load_bytes_avx2
#define repeat_avxvnni repeat_avx2
#define load_part_avxvnni load_part_avx2
#define places_avxvnni places_avx2
#define fma_avxvnni fma_avx2
#define quarter_avxvnni quarter_avx2
#define spread_avxvnni spread_avx2
#define low_avxvnni low_avx2
#define high_avxvnni high_avx2
#define widen_avxvnni widen_avx2
#define narrow_avxvnni narrow_avx2
SHORT Ints_avx2 dot_avxvnni(Ints_avx2 sum, __m256i weights, __m256i values) {
  return (Ints_avx2)_mm256_dpbusd_avx_epi32((__m256i)sum, weights, values);
}
#define dot_8_avxvnni dot_avxvnni
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

static int has_all(unsigned found, unsigned wanted) { return (found & wanted) == wanted; }

/* What the processor has and the system keeps when threads take turns. Asked of the processor, because the library that
   `__builtin_cpu_supports` looks it up in is missing where Clang comes as Zig, and then finds nothing. */
static void look(int* has_avx2, int* has_avx512) {
  enum { WIDE = 0x6, WIDEST = 0xe0 }; /* registers that are kept: of AVX, and what AVX-512 adds */
  unsigned a, b, c, d, kept, high;
  *has_avx2 = *has_avx512 = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !has_all(c, bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C)) return;
  __asm__ volatile("xgetbv" : "=a"(kept), "=d"(high) : "c"(0));
  if (!has_all(kept, WIDE) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
  *has_avx2 = has_all(b, bit_AVX2);
#if defined(__APPLE__)
  kept |= WIDEST; /* which are kept from a thread's first use of them on */
#endif
  *has_avx512 = has_all(kept, WIDEST) && has_all(b, bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ) &&
                has_all(c, bit_AVX512VNNI);
}

static Forward* supported(const char** name) {
  int has_avx2, has_avx512;
  look(&has_avx2, &has_avx512);
  const char* most = getenv("EDGEVL_NATIVE");
  const int is_plain = most && !strcmp(most, "avx2"); /* without newer instructions */
  if (has_avx512 && !is_plain) {
#if HAS_NEWER
    if (has_newer(5) && !(most && !strcmp(most, "avx512"))) {
      *name = "avx512bf16";
      return forward_avx512bf16;
    }
#endif
    *name = "avx512";
    return forward_avx512;
  }
  if (has_avx2) {
#if HAS_NEWER
    if (has_newer(4) && !is_plain) {
      *name = "avxvnni";
      return forward_avxvnni;
    }
#endif
    *name = "avx2";
    return forward_avx2;
  }
  return NULL;
}

/* ---- ARM with dot products ---- */

/* Clang's arm_neon.h has them without being asked for the architecture from 16 on. */
#elif defined(__aarch64__) && !defined(__AARCH64EB__) && \
    (defined(__ARM_FEATURE_DOTPROD) || !defined(__clang__) || __clang_major__ >= 16)

#if defined(__ARM_FEATURE_DOTPROD)
#define HAS_DOTPROD 1 /* wherever this runs */
#else
#define HAS_DOTPROD 0
#endif
#if HAS_DOTPROD
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#define NAME(name) name##_neon
#define LANES 4
#define ZERO_8 0
#define N_TOGETHER 8
#define TOGETHER(what) what(0) what(1) what(2) what(3) what(4) what(5) what(6) what(7)
typedef uint8x16_t Bytes_neon;
typedef struct {
  int n_bytes, n_scales;
} Part_neon;
SHORT Part_neon part_neon(int n_bytes, int n_scales) { return (Part_neon){n_bytes, n_scales}; }
SHORT uint8x16_t load_bytes_neon(const int8_t* from) { return vreinterpretq_u8_s8(vld1q_s8(from)); }
SHORT uint8x16_t repeat_neon(const int8_t* from) {
  uint32_t four;
  memcpy(&four, from, 4);
  return vreinterpretq_u8_u32(vdupq_n_u32(four));
}
SHORT uint8x16_t load_part_neon(const uint8_t* from, Part_neon part) {
  if (part.n_bytes == 16) return vld1q_u8(from);
  uint8_t bytes[16] = {0};
  memcpy(bytes, from, (size_t)part.n_bytes);
  return vld1q_u8(bytes);
}
typedef int Places_neon; /* lanes that share a scale */
SHORT Places_neon places_neon(int lanes) { return lanes; }
SHORT float32x4_t fma_neon(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }
SHORT Four quarter_neon(float32x4_t x) { return (Four)x; }
SHORT float32x4_t spread_neon(const float* scales, Part_neon part, Places_neon lanes) {
  if (lanes == 4) return vdupq_n_f32(scales[0]);
  const float32_t other = part.n_scales > 1 ? scales[1] : 0.0f; /* two share a scale */
  return vcombine_f32(vdup_n_f32(scales[0]), vdup_n_f32(other));
}
SHORT uint8x16_t low_neon(uint8x16_t x) { return vandq_u8(x, vdupq_n_u8(15)); }
SHORT uint8x16_t high_neon(uint8x16_t x) { return vshrq_n_u8(x, 4); }
SHORT int32x4_t dot_neon(int32x4_t sum, uint8x16_t weights, uint8x16_t values) {
  return vdotq_s32(sum, vreinterpretq_s8_u8(weights), vreinterpretq_s8_u8(values));
}
SHORT int32x4_t dot_8_neon(int32x4_t sum, uint8x16_t weights, uint8x16_t values) {
  return dot_neon(sum, veorq_u8(weights, vdupq_n_u8(0x80)), values);
}
SHORT float32x4_t widen_neon(const uint16_t* from) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))); }
SHORT void narrow_neon(float32x4_t x, uint16_t* to) {
  const float32x4_t within = vminq_f32(vdupq_n_f32(MOST_HALF), vmaxq_f32(vdupq_n_f32(-MOST_HALF), x));
  vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(within)));
}
#include "kernels.h"
#if HAS_DOTPROD
#elif defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

static Forward* supported(const char** name) {
#if defined(__linux__)
  const int is_there = HAS_DOTPROD || (getauxval(AT_HWCAP) & 1ul << 20) != 0; /* HWCAP_ASIMDDP */
#elif defined(_WIN32)
  const int is_there = HAS_DOTPROD || IsProcessorFeaturePresent(PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE);
#else
  const int is_there = HAS_DOTPROD;
#endif
  if (!is_there) return NULL;
  *name = "neon";
  return forward_neon;
}

#else

static Forward* supported(const char** name) {
  (void)name;
  return NULL;
}

#endif

/* ---- what the caller sees ---- */

/* Return the instruction set that is used here; "" where there is none for this processor */
EXPORTED const char* edgevl_decoder_isa(void) {
  const char* name = "";
  supported(&name);
  return name;
}

static int64_t greatest(int64_t a, int64_t b) { return a > b ? a : b; }

/* A token's values for a product, quantized, with the scales and offsets of lanes or blocks */
static int64_t quantized_bytes(const Product* product) {
  return 4 * ((int64_t)product->k * product->bits / 8 + MOST_BYTES);
}

/* MOST_LANES rows of weights, laid out anew */
static int64_t packed_floats(const Product* product) {
  return (int64_t)(product->k / 4 + product->k / product->block) * MOST_LANES;
}

/* Return memory that any vector may lie at the beginning of, or NULL; `free_room` takes it back */
static void* room(int64_t n_bytes) {
  const size_t size = (size_t)(n_bytes + 63) / 64 * 64;
#if defined(_WIN32)
  return _aligned_malloc(size, 64);
#else
  void* found = NULL;
  return posix_memalign(&found, 64, size) ? NULL : found;
#endif
}

static void free_room(void* room) {
#if defined(_WIN32)
  _aligned_free(room); /* `free` does not know it */
#else
  free(room);
#endif
}

EXPORTED void edgevl_decoder_close(Decoder* decoder) {
  if (!decoder) return;
  if (decoder->pid == getpid()) {
    atomic_store_explicit(&decoder->is_closing, 1, memory_order_relaxed);
    publish(decoder, atomic_load_explicit(&decoder->number, memory_order_relaxed) + ONE_RUN);
    for (int i = 0; i + 1 < decoder->n_threads; i++) pthread_join(decoder->workers[i], NULL);
    pthread_mutex_destroy(&decoder->mutex);
    pthread_cond_destroy(&decoder->woken); /* would wait for ever for threads that did not come along */
  }
  for (int i = 0; i < decoder->n_rooms; i++) {
    if (decoder->own) free_room(decoder->own[i]);
    if (decoder->own_chunks) free_room(decoder->own_chunks[i]);
  }
  free(decoder->own);
  free(decoder->own_chunks);
  free_room(decoder->x);
  free_room(decoder->qkv);
  free_room(decoder->mixed);
  free_room(decoder->gated);
  free_room(decoder->partial);
  free_room(decoder->chunks);
  free_room(decoder->phases);
  free(decoder->workers);
  free_room(decoder->layers);
  free(decoder);
}

/* Return a decoder that takes up to `max_tokens` tokens at once, or NULL: no memory, no threads, or no such processor.
   `model` is copied, its weights are not. */
EXPORTED Decoder* edgevl_decoder_open(const Model* model, int n_threads, int max_tokens) {
  const char* name;
  Forward* forward = supported(&name);
  if (!forward || n_threads < 1 || max_tokens < 1) return NULL;
  Decoder* decoder = calloc(1, sizeof *decoder);
  if (!decoder) return NULL;
  pthread_mutex_init(&decoder->mutex, NULL);
  pthread_cond_init(&decoder->woken, NULL);
  const int dim = model->head_dim, each = model->n_heads / model->n_kv_heads, size = dim + 2;
  const int64_t wide = (int64_t)(model->n_heads + 2 * model->n_kv_heads) * dim;
  /* what a thread computes with: a token's values, scores of few tokens, or what many tokens' attention takes */
  int64_t longest = greatest(greatest(model->hidden, model->intermediate), (int64_t)model->n_heads * dim);
  longest = greatest(longest, (int64_t)MAX_QUERIES * BLOCK + SPAN * dim);
  longest = greatest(longest, (2 * (int64_t)each * dim + SPAN + 2 * each) * MOST_LANES + 2 * SPAN * dim);
  int64_t quantized = quantized_bytes(&model->head);
  longest = greatest(longest, packed_floats(&model->head));
  for (int i = 0; i < model->n_layers; i++) {
    const Layer* layer = model->layers + i;
    const Product* products[] = {&layer->qkv, &layer->out, &layer->gate_up, &layer->down};
    for (int j = 0; j < 4; j++) {
      quantized = greatest(quantized, quantized_bytes(products[j]));
      longest = greatest(longest, packed_floats(products[j]));
    }
  }
  decoder->model = *model;
  decoder->forward = forward;
  decoder->max_tokens = max_tokens;
  decoder->max_blocks = (model->n_positions + BLOCK - 1) / BLOCK;
  decoder->pid = getpid();
  decoder->n_threads = 1;
  decoder->n_used = n_threads;
  decoder->n_rooms = n_threads;
  const int64_t tokens = max_tokens;
  decoder->model.layers = decoder->layers = room((int64_t)sizeof(Layer) * model->n_layers);
  decoder->x = room(4 * tokens * model->hidden);
  decoder->qkv = room(4 * tokens * wide);
  decoder->mixed = room(4 * tokens * model->n_heads * dim);
  decoder->gated = room(4 * tokens * 2 * model->intermediate);
  decoder->partial = room(4 * (int64_t)decoder->max_blocks * model->n_kv_heads * each * GROUP * size);
  decoder->chunks = room((tokens + MOST_TOGETHER) * quantized); /* of many, whole tiles */
  decoder->phases = room((int64_t)sizeof(Phase) * n_phases(model));
  decoder->own = calloc((size_t)n_threads, sizeof *decoder->own);
  decoder->own_chunks = calloc((size_t)n_threads, sizeof *decoder->own_chunks);
  decoder->workers = calloc((size_t)n_threads, sizeof *decoder->workers);
  int has_room = decoder->layers && decoder->x && decoder->qkv && decoder->mixed && decoder->gated &&
                 decoder->partial && decoder->chunks && decoder->phases && decoder->own && decoder->own_chunks &&
                 decoder->workers;
  for (int i = 0; has_room && i < n_threads; i++) {
    decoder->own[i] = room(4 * longest);
    decoder->own_chunks[i] = room(quantized);
    has_room = decoder->own[i] && decoder->own_chunks[i];
  }
  if (!has_room) {
    edgevl_decoder_close(decoder);
    return NULL;
  }
  memcpy(decoder->layers, model->layers, sizeof(Layer) * (size_t)model->n_layers);
#if !defined(_WIN32) /* which has no signals for threads */
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the threads of the caller */
#endif
  for (int i = 1; i < n_threads; i++) {
    Work* given = malloc(sizeof *given);
    if (given) *given = (Work){decoder, i};
    if (!given || pthread_create(&decoder->workers[i - 1], NULL, work, given)) {
      free(given);
      break; /* fewer threads do it too */
    }
    decoder->n_threads++;
  }
#if !defined(_WIN32)
  pthread_sigmask(SIG_SETMASK, &before, NULL);
#endif
  return decoder;
}

/* Feed `n` tokens (max_tokens at most) behind `n_past`: their embeddings [n, hidden]. Their keys and values go into the
   caches of each layer, half precision [n_kv_heads, capacity, head_dim]; scores of the last `n_scored`, which may be
   none, to `logits` [n_scored, vocab]; where that is NULL, `edgevl_decoder_score` gives them. Returns 0, or -1 where
   that does not fit. */
EXPORTED int edgevl_decoder_run(Decoder* decoder, const float* embeds, int n, int n_past, uint16_t* const* keys,
                                uint16_t* const* values, int64_t capacity, int n_scored, float* logits) {
  const int64_t end = (int64_t)n_past + n;
  if (n < 1 || n > decoder->max_tokens || n_past < 0 || end > capacity || end > decoder->model.n_positions ||
      n_scored < 0 || n_scored > n)
    return -1;
  decoder->keys = keys;
  decoder->values = values;
  decoder->capacity = capacity;
  memcpy(decoder->x, embeds, sizeof(float) * (size_t)n * (size_t)decoder->model.hidden);
  Run run = begin(decoder, decoder->model.n_layers, n, n_past, n_scored, logits);
  decoder->forward(&run);
  wait_for_items(&run);
  return 0;
}

/* Give the scores of the run before that it left out: those of its last `n_scored` tokens, to `logits` */
EXPORTED void edgevl_decoder_score(Decoder* decoder, float* logits) {
  const Run last = run_of(decoder, 0, 0);
  Run run = begin(decoder, 0, last.n_tokens, last.n_past, last.n_scored, logits);
  decoder->forward(&run);
  wait_for_items(&run);
}

/* Let `n` threads take part from now on, of those that it was opened with; while a run goes on, in what is left of it
 */
EXPORTED void edgevl_decoder_use(Decoder* decoder, int n) {
  if (decoder->pid != getpid()) return;
  pthread_mutex_lock(&decoder->mutex);
  atomic_store_explicit(&decoder->n_used, n < 1 ? 1 : n, memory_order_relaxed);
  if (decoder->asleep) pthread_cond_broadcast(&decoder->woken);
  pthread_mutex_unlock(&decoder->mutex);
}
