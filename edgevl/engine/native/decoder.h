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
#define COUNTERS 11     /* of each layer: what threads share out among them */
#define MAX_QUERIES 64  /* rows of queries that read a block of keys together */

typedef struct Decoder Decoder;

/* what an instruction set computes: a run of the decoder, by thread `thread` of all */
typedef void Forward(Decoder* decoder, int thread);

typedef struct {
  _Alignas(64) atomic_int n;
} Counter;

struct Decoder {
  Model model;
  Layer* layers;
  int n_threads, n_rooms, max_tokens, max_blocks, pid;
  Forward* forward;
  /* of one run */
  uint16_t *const *keys, *const *values; /* of each layer, in half precision: [n_kv_heads, capacity, head_dim] */
  int64_t capacity;
  int n_tokens, n_past, n_scored;
  float* logits;
  /* room for it */
  float *x, *qkv, *mixed, *gated, *partial;
  void *chunks, **own_chunks; /* quantized tokens: of all threads, and of each */
  float** own;
  Counter* taken;
  /* threads */
  pthread_t* workers;
  pthread_mutex_t mutex;
  pthread_cond_t woken;
  atomic_int arrived;
  atomic_uint turn, job;
  int asleep, is_closing;
};

void decoder_wait(Decoder* decoder);

#endif
