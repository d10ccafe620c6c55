/* A Llama-like decoder over quantized weights, computed on the processor's vector units: one token at the speed at
   which memory gives its weights, and prompts with the same weights. The weights stay where they are mapped.

   Plain C with GCC's and Clang's vectors (other compilers do not build it, and edgevl does without). */

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
/* lanes of two vectors of four */
#if defined(__clang__)
#define MIX(x, y, i, j, k, l) __builtin_shufflevector(x, y, i, j, k, l)
#else
typedef int32_t Mix __attribute__((vector_size(16)));
#define MIX(x, y, i, j, k, l) __builtin_shuffle(x, y, (Mix){i, j, k, l})
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

/* Wait until all threads of a run have come here. They wait actively, and let others have the core after a while. */
void decoder_wait(Decoder* decoder) {
  if (decoder->n_threads == 1) return;
  const unsigned turn = atomic_load_explicit(&decoder->turn, memory_order_relaxed);
  if (atomic_fetch_add_explicit(&decoder->arrived, 1, memory_order_acq_rel) == decoder->n_threads - 1) {
    atomic_store_explicit(&decoder->arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&decoder->turn, turn + 1, memory_order_release);
    return;
  }
  for (int n = 0; atomic_load_explicit(&decoder->turn, memory_order_acquire) == turn; n++) {
    if (n < SPINS) {
      pause_once();
    } else {
      sched_yield();
    }
  }
}

typedef struct {
  Decoder* decoder;
  int thread;
} Work;

static void* work(void* given) {
  Decoder* decoder = ((Work*)given)->decoder;
  const int thread = ((Work*)given)->thread;
  free(given);
  for (unsigned done = 0;;) {
    for (int n = 0; n < SPINS && atomic_load_explicit(&decoder->job, memory_order_acquire) == done; n++) pause_once();
    if (atomic_load_explicit(&decoder->job, memory_order_acquire) == done) {
      pthread_mutex_lock(&decoder->mutex);
      decoder->asleep++;
      while (atomic_load_explicit(&decoder->job, memory_order_acquire) == done)
        pthread_cond_wait(&decoder->woken, &decoder->mutex);
      decoder->asleep--;
      pthread_mutex_unlock(&decoder->mutex);
    }
    done++;
    if (decoder->is_closing) return NULL;
    decoder->forward(decoder, thread);
    decoder_wait(decoder);
  }
}

static void wake(Decoder* decoder) {
  pthread_mutex_lock(&decoder->mutex);
  atomic_fetch_add_explicit(&decoder->job, 1, memory_order_acq_rel);
  if (decoder->asleep) pthread_cond_broadcast(&decoder->woken);
  pthread_mutex_unlock(&decoder->mutex);
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
#define PIECES 1
#define MANY_TOKENS 8
#define ZERO_8 128
#include "vectors.h"
typedef __m512i Bytes_avx512;
/* how much of a chunk's bytes and scales there is */
typedef struct {
  __mmask64 bytes;
  __mmask16 scales;
} Part_avx512;
SHORT Part_avx512 part_avx512(int n_bytes, int n_scales) {
  return (Part_avx512){~(__mmask64)0 >> (CHUNK_BYTES - n_bytes), (__mmask16)((1u << n_scales) - 1)};
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
SHORT Floats_avx512 spread_avx512(const float* scales, Part_avx512 part, Places_avx512 places) {
  return (Floats_avx512){_mm512_permutexvar_ps(places, _mm512_maskz_loadu_ps(part.scales, scales))};
}
SHORT __m512i low_avx512(__m512i x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
SHORT __m512i high_avx512(__m512i x) { return _mm512_and_si512(_mm512_srli_epi16(x, 4), _mm512_set1_epi8(15)); }
SHORT Ints_avx512 dot_avx512(Ints_avx512 sum, __m512i weights, __m512i values) {
  sum.a = (IntPiece_avx512)_mm512_dpbusd_epi32((__m512i)sum.a, weights, values);
  return sum;
}
#define dot_8_avx512 dot_avx512
SHORT FloatPiece_avx512 greater_piece_avx512(FloatPiece_avx512 x, FloatPiece_avx512 y) { return _mm512_max_ps(x, y); }
SHORT Four_avx512 quarter_avx512(Floats_avx512 x) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(x.a), _mm512_extractf32x8_ps(x.a, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
SHORT void put_bytes_avx512(Ints_avx512 x, int8_t* to) {
  _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8((__m512i)x.a));
}
SHORT Floats_avx512 widen_avx512(const uint16_t* from) {
  return (Floats_avx512){_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from))};
}
SHORT void narrow_avx512(Floats_avx512 x, uint16_t* to) {
  const __m512 most = _mm512_set1_ps(MOST_HALF), least = _mm512_set1_ps(-MOST_HALF);
  /* the second one is given where the first is no number: it is to stay so */
  const __m512 within = _mm512_min_ps(most, _mm512_max_ps(least, x.a));
  _mm256_storeu_si256((__m256i*)to, _mm512_cvtps_ph(within, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

/* ---- x86 with AVX2 ---- */

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define NAME(name) name##_avx2
#define PIECES 2
#define MANY_TOKENS 4
#define ZERO_8 0 /* 8-bit weights are made signed */
#include "vectors.h"
#include "avx2.h"
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

/* ---- x86 with AVX2 and VNNI ---- */

#if !defined(__APPLE__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define HAS_AVXVNNI 1
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avxvnni")
#endif
#define NAME(name) name##_avxvnni
#define PIECES 2
#define MANY_TOKENS 4
#define ZERO_8 128
#include "vectors.h"
#include "avx2.h"
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

static int has_f16c(void) {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

#if HAS_AVXVNNI
static int has_avxvnni(void) {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}
#endif

static Forward* supported(const char** name) {
  __builtin_cpu_init();
  const char* most = getenv("EDGEVL_NATIVE");
  const int is_plain = most && !strcmp(most, "avx2"); /* without newer instructions */
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") && !is_plain) {
    *name = "avx512";
    return forward_avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) {
#if HAS_AVXVNNI
    if (has_avxvnni() && !is_plain) {
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

#if defined(__linux__)
#include <sys/auxv.h>
#endif

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
#define PIECES 4
#define MANY_TOKENS 4
#define ZERO_8 0
#include "vectors.h"
typedef struct {
  int8x16_t a, b, c, d;
} Bytes_neon;
typedef struct {
  int n_bytes, n_scales;
} Part_neon;
SHORT Part_neon part_neon(int n_bytes, int n_scales) { return (Part_neon){n_bytes, n_scales}; }
SHORT Bytes_neon load_bytes_neon(const int8_t* from) {
  return (Bytes_neon){vld1q_s8(from), vld1q_s8(from + 16), vld1q_s8(from + 32), vld1q_s8(from + 48)};
}
SHORT Bytes_neon repeat_neon(const int8_t* from) {
  int32_t four;
  memcpy(&four, from, 4);
  const int8x16_t all = vreinterpretq_s8_s32(vdupq_n_s32(four));
  return (Bytes_neon){all, all, all, all};
}
SHORT Bytes_neon load_part_neon(const uint8_t* from, Part_neon part) {
  if (part.n_bytes == CHUNK_BYTES) return load_bytes_neon((const int8_t*)from);
  int8_t bytes[CHUNK_BYTES] = {0};
  memcpy(bytes, from, (size_t)part.n_bytes);
  return load_bytes_neon(bytes);
}
typedef int Places_neon; /* lanes that share a scale */
SHORT Places_neon places_neon(int lanes) { return lanes; }
SHORT float32x4_t spread_piece_neon(const float* scales, int n, int first, int lanes) {
  if (lanes == 2)
    return vcombine_f32(vdup_n_f32(first / 2 < n ? scales[first / 2] : 0.0f),
                        vdup_n_f32(first / 2 + 1 < n ? scales[first / 2 + 1] : 0.0f));
  return vdupq_n_f32(first / lanes < n ? scales[first / lanes] : 0.0f);
}
SHORT Floats_neon spread_neon(const float* scales, Part_neon part, Places_neon lanes) {
  if (lanes == 4 && part.n_scales == 4)
    return (Floats_neon){vdupq_n_f32(scales[0]), vdupq_n_f32(scales[1]), vdupq_n_f32(scales[2]),
                         vdupq_n_f32(scales[3])};
  return (Floats_neon){
      spread_piece_neon(scales, part.n_scales, 0, lanes), spread_piece_neon(scales, part.n_scales, 4, lanes),
      spread_piece_neon(scales, part.n_scales, 8, lanes), spread_piece_neon(scales, part.n_scales, 12, lanes)};
}
#define EACH_PIECE(what) {what(a), what(b), what(c), what(d)}
#define LOW(p) vandq_s8(x.p, vdupq_n_s8(15))
SHORT Bytes_neon low_neon(Bytes_neon x) { return (Bytes_neon)EACH_PIECE(LOW); }
#define HIGH(p) vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(x.p), 4))
SHORT Bytes_neon high_neon(Bytes_neon x) { return (Bytes_neon)EACH_PIECE(HIGH); }
#define DOT(p) vdotq_s32(sum.p, weights.p, values.p)
SHORT Ints_neon dot_neon(Ints_neon sum, Bytes_neon weights, Bytes_neon values) { return (Ints_neon)EACH_PIECE(DOT); }
#define DOT_8(p) vdotq_s32(sum.p, veorq_s8(weights.p, vdupq_n_s8(-128)), values.p)
SHORT Ints_neon dot_8_neon(Ints_neon sum, Bytes_neon weights, Bytes_neon values) {
  return (Ints_neon)EACH_PIECE(DOT_8);
}
#undef EACH_PIECE
#undef LOW
#undef HIGH
#undef DOT
#undef DOT_8
SHORT FloatPiece_neon greater_piece_neon(FloatPiece_neon x, FloatPiece_neon y) {
  return vbslq_f32(vcgtq_f32(x, y), x, y);
}
SHORT Four_neon quarter_neon(Floats_neon x) { return (x.a + x.c) + (x.b + x.d); }
SHORT void put_bytes_neon(Ints_neon x, int8_t* to) {
  const int16x8_t first = vcombine_s16(vmovn_s32(x.a), vmovn_s32(x.b));
  const int16x8_t second = vcombine_s16(vmovn_s32(x.c), vmovn_s32(x.d));
  vst1q_s8(to, vcombine_s8(vmovn_s16(first), vmovn_s16(second)));
}
SHORT float32x4_t widen_piece_neon(const uint16_t* from) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))); }
SHORT Floats_neon widen_neon(const uint16_t* from) {
  return (Floats_neon){widen_piece_neon(from), widen_piece_neon(from + 4), widen_piece_neon(from + 8),
                       widen_piece_neon(from + 12)};
}
SHORT void narrow_piece_neon(float32x4_t x, uint16_t* to) {
  const float32x4_t within = vminq_f32(vdupq_n_f32(MOST_HALF), vmaxq_f32(vdupq_n_f32(-MOST_HALF), x));
  vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(within)));
}
SHORT void narrow_neon(Floats_neon x, uint16_t* to) {
  narrow_piece_neon(x.a, to);
  narrow_piece_neon(x.b, to + 4);
  narrow_piece_neon(x.c, to + 8);
  narrow_piece_neon(x.d, to + 12);
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

static int n_chunks(const Product* product) { return (product->k * product->bits / 8 + CHUNK_BYTES - 1) / CHUNK_BYTES; }

/* LANES rows of weights, laid out anew */
static int64_t packed_floats(const Product* product) {
  return ((int64_t)product->k * (LANES + 1) + 3) / 4 + (int64_t)product->k / product->block * LANES;
}

static void* room(int64_t n_bytes) {
  void* found = NULL;
  return posix_memalign(&found, 64, (size_t)(n_bytes + 63) / 64 * 64) ? NULL : found;
}

EXPORTED void edgevl_decoder_close(Decoder* decoder) {
  if (!decoder) return;
  if (decoder->pid == getpid()) {
    decoder->is_closing = 1;
    wake(decoder);
    for (int i = 0; i + 1 < decoder->n_threads; i++) pthread_join(decoder->workers[i], NULL);
    pthread_mutex_destroy(&decoder->mutex);
    pthread_cond_destroy(&decoder->woken); /* would wait for ever for threads that did not come along */
  }
  for (int i = 0; i < decoder->n_rooms; i++) {
    if (decoder->own) free(decoder->own[i]);
    if (decoder->own_chunks) free(decoder->own_chunks[i]);
  }
  free(decoder->own);
  free(decoder->own_chunks);
  free(decoder->x);
  free(decoder->qkv);
  free(decoder->mixed);
  free(decoder->gated);
  free(decoder->partial);
  free(decoder->chunks);
  free(decoder->taken);
  free(decoder->workers);
  free(decoder->layers);
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
  longest = greatest(longest, (2 * (int64_t)each * dim + SPAN + 2 * each) * LANES + 2 * SPAN * dim);
  int chunks = n_chunks(&model->head);
  longest = greatest(longest, packed_floats(&model->head));
  for (int i = 0; i < model->n_layers; i++) {
    const Layer* layer = model->layers + i;
    const Product* products[] = {&layer->qkv, &layer->out, &layer->gate_up, &layer->down};
    for (int j = 0; j < 4; j++) {
      chunks = (int)greatest(chunks, n_chunks(products[j]));
      longest = greatest(longest, packed_floats(products[j]));
    }
  }
  decoder->model = *model;
  decoder->forward = forward;
  decoder->max_tokens = max_tokens;
  decoder->max_blocks = (model->n_positions + BLOCK - 1) / BLOCK;
  decoder->pid = getpid();
  decoder->n_threads = 1;
  decoder->n_rooms = n_threads;
  const int64_t tokens = max_tokens;
  decoder->model.layers = decoder->layers = room((int64_t)sizeof(Layer) * model->n_layers);
  decoder->x = room(4 * tokens * model->hidden);
  decoder->qkv = room(4 * tokens * wide);
  decoder->mixed = room(4 * tokens * model->n_heads * dim);
  decoder->gated = room(4 * tokens * 2 * model->intermediate);
  decoder->partial = room(4 * (int64_t)decoder->max_blocks * model->n_kv_heads * each * GROUP * size);
  decoder->chunks = room((int64_t)sizeof(Chunk) * tokens * chunks);
  decoder->taken = room((int64_t)sizeof(Counter) * (COUNTERS * model->n_layers + 2));
  decoder->own = calloc((size_t)n_threads, sizeof *decoder->own);
  decoder->own_chunks = calloc((size_t)n_threads, sizeof *decoder->own_chunks);
  decoder->workers = calloc((size_t)n_threads, sizeof *decoder->workers);
  int has_room = decoder->layers && decoder->x && decoder->qkv && decoder->mixed && decoder->gated &&
                 decoder->partial && decoder->chunks && decoder->taken && decoder->own && decoder->own_chunks &&
                 decoder->workers;
  for (int i = 0; has_room && i < n_threads; i++) {
    decoder->own[i] = room(4 * longest);
    decoder->own_chunks[i] = room((int64_t)sizeof(Chunk) * chunks);
    has_room = decoder->own[i] && decoder->own_chunks[i];
  }
  if (!has_room) {
    edgevl_decoder_close(decoder);
    return NULL;
  }
  memcpy(decoder->layers, model->layers, sizeof(Layer) * (size_t)model->n_layers);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the threads of the caller */
  for (int i = 1; i < n_threads; i++) {
    Work* given = malloc(sizeof *given);
    if (given) *given = (Work){decoder, i};
    if (!given || pthread_create(&decoder->workers[i - 1], NULL, work, given)) {
      free(given);
      break; /* fewer threads do it too */
    }
    decoder->n_threads++;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return decoder;
}

/* Feed `n` tokens (max_tokens at most) behind `n_past`: their embeddings [n, hidden]. Their keys and values go into the
   caches of each layer, half precision [n_kv_heads, capacity, head_dim]; scores of the last `n_scored` to `logits`
   [n_scored, vocab]. Returns 0, or -1 where that does not fit. */
EXPORTED int edgevl_decoder_run(Decoder* decoder, const float* embeds, int n, int n_past, uint16_t* const* keys,
                                uint16_t* const* values, int64_t capacity, int n_scored, float* logits) {
  const int64_t end = (int64_t)n_past + n;
  if (n < 1 || n > decoder->max_tokens || n_past < 0 || end > capacity || end > decoder->model.n_positions ||
      n_scored < 1 || n_scored > n)
    return -1;
  decoder->keys = keys;
  decoder->values = values;
  decoder->capacity = capacity;
  decoder->n_tokens = n;
  decoder->n_past = n_past;
  decoder->n_scored = n_scored;
  decoder->logits = logits;
  memcpy(decoder->x, embeds, sizeof(float) * (size_t)n * (size_t)decoder->model.hidden);
  memset(decoder->taken, 0, sizeof(Counter) * (size_t)(COUNTERS * decoder->model.n_layers + 2));
  if (decoder->n_threads > 1 && decoder->pid != getpid())
    decoder->n_threads = 1; /* threads do not come along into a forked process */
  if (decoder->n_threads > 1) wake(decoder);
  decoder->forward(decoder, 0);
  decoder_wait(decoder);
  return 0;
}
