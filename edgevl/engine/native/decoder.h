/* What the caller and every instruction set share: a decoder's weights, and one run of it. See decoder.c. */
#ifndef EDGEVL_DECODER_H
#define EDGEVL_DECODER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

/* `n` rows of `k` weights, quantized in blocks of `block` (MOST_BYTES at most) with a scale each, as MatMulNBits
   stores them: the middle of the range is zero. `bias` may be NULL. */
typedef struct {
  const uint8_t* weights;
  const float *scales, *bias;
  int32_t n, k, bits, block;
} Product;

/* rows of `qkv`: queries, keys, values; of `gate_up`: what opens the gate, then what goes through it */
typedef struct {
  const float *norm, *post_norm;
  Product qkv, out, gate_up, down;
} Layer;

typedef struct {
  int32_t n_layers, hidden, n_heads, n_kv_heads, head_dim, intermediate, vocab, half_rotary, n_positions;
  float epsilon, scale;
  const float *cos, *sin, *final_norm; /* cos and sin: [n_positions, half_rotary] */
  Product head;
  const Layer* layers;
} Model;

#define MOST_LANES 16   /* of a vector of floats, in any instruction set */
#define MOST_TOGETHER 8 /* tokens of a tile of many, in any instruction set */
#define MOST_BYTES 64   /* of weights in a block */
#define GROUP 4         /* tokens that share one pass over a row of weights */
#define BLOCK 256       /* positions whose attention is one sum; sums are added in order */
#define SPAN 64         /* positions whose keys stay in the first cache while all queries are compared with them */
#define PHASES 11       /* of a layer, at most: parts whose items threads share out among them */
#define MAX_QUERIES 64  /* rows of queries that read a block of keys together */

typedef struct Decoder Decoder;

/* How many items of a part of a run were taken, and how many of them are done: in the lower halves. The upper ones hold
   the run's number, so that a thread that was left behind in an earlier run finds nothing here to take or wait for. */
typedef struct {
  _Alignas(64) _Atomic uint64_t taken;
  _Atomic uint64_t done;
} Phase;

/* A run as one thread sees it */
typedef struct {
  Decoder* decoder;
  uint64_t number; /* in the upper half */
  int thread, n_layers, n_tokens, n_past, n_scored;
  float* logits;
  Phase* phase;
  int n_items, n_taken; /* of this phase: all, and by this thread */
} Run;

/* what an instruction set computes: a run of the decoder, by one thread of all */
typedef void Forward(Run* run);

struct Decoder {
  Model model;
  Layer* layers;
  int n_threads, n_rooms, max_tokens, max_blocks, pid;
  Forward* forward;
  /* of one run: what a thread may read before it takes an item, and what only then */
  atomic_int n_layers, n_tokens, n_past, n_scored;
  _Atomic(float*) logits;
  uint16_t *const *keys, *const *values; /* of each layer, in half precision: [n_kv_heads, capacity, head_dim] */
  int64_t capacity;
  /* room for it */
  float *x, *qkv, *mixed, *gated, *partial;
  void *chunks, **own_chunks; /* quantized tokens: of all threads, and of each */
  float** own;
  Phase* phases;
  /* threads */
  pthread_t* workers;
  pthread_mutex_t mutex;
  pthread_cond_t woken;
  _Atomic uint64_t number; /* of the run, in the upper half */
  atomic_int n_used;       /* threads of all that take part */
  atomic_int is_closing;
  int asleep;
};

#endif
