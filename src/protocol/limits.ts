/**
 * Every bound on what a peer may send, and every span of time that both sides have to agree on. Beyond one of the bounds
 * the connection ends with the error `limit`, unless the comment names another.
 */
export const limits = {
  /** A hello is three names. Until it has come nobody is known, so no more than this is ever held for a peer. */
  helloBytesMax: 1024,
  /** A begin with its labels, and a ping, with room for the fields of later versions. */
  smallFrameBytesMax: 4096,
  /** Any frame to an agent. An agent has few megabytes and no reason to hold much for its server. */
  agentBoundFrameBytesMax: 4096,
  /** The dearest frame of all is a schema of one family with ever other labels: 16 KiB of them take some 2 ms. */
  schemaFrameBytesMax: 16 * 1024,
  unknownFrameBytesMax: 256 * 1024,
  /** All series of the biggest schema, each with a skip and a double, are 720 KB. */
  reportFrameBytesMax: 1024 * 1024,
  /** Any one string; those of a HELP may be so long. */
  stringBytesMax: 1024,
  /** MessagePack values in one frame, arrays too: four for each series of the biggest schema. */
  frameValuesMax: 262_144,
  /** A schema is four deep: the message, a family, a group, its label names. */
  depthMax: 5,

  /** Since the last begin. A host of 256 CPUs, 500 interfaces, 200 disks and 1000 mounts has some 36 000. */
  seriesMax: 65_536,
  /** Payload bytes of the schema frames since the last begin: 128 bytes for each of the most series. */
  schemaBytesMax: 8 * 1024 * 1024,
  /** Beyond it: `schema`. A divisor fits 32 bits, so that dividing loses no more than the last bit. */
  divisorMax: 2 ** 31,

  /**
   * Labels of one series as Prometheus counts them: its own, `__name__`, `agent`, `job` and `instance`, `source` where it is
   * not the host's, and its source's labels. Prometheus's `label_limit` can be set so.
   */
  seriesLabelsMax: 64,
  /** A metric's name with its suffix, and a label's; Prometheus's `label_name_length_limit` can be set so. */
  nameBytesMax: 128,
  /** A source's labels too. Prometheus's `label_value_length_limit` can be set so. Mount points and versions stay well below. */
  labelValueBytesMax: 512,
  /** What one series comes to as a line of text, its source's labels, value and timestamp included. */
  lineBytesMax: 4096,
  /** What one report comes to as text, when every series is present. A host of 36 000 series has 5 MiB. */
  reportTextBytesMax: 16 * 1024 * 1024,

  /** Beyond it: `bad-message`. */
  agentNameCharactersMax: 128,
  /** Beyond it: `bad-message`. A machine-id is 32 bytes, a SHA-256 in hex 64. */
  hostIdBytesMax: 64,
  /** Beyond it: `bad-message`. */
  softwareBytesMax: 64,
  /** Of one connection: the host and the exporters that it forwards. */
  sourcesMax: 64,
  /** Beyond it: `bad-message`. */
  sourceNameCharactersMax: 64,
  /** Pairs of a source's labels: each is on every series, so each costs the database once a series. */
  labelsMax: 32,
  /** The same, names and values together. */
  labelsBytesMax: 1024,
  /** Below it: `bad-message`. Ten reports a second. */
  intervalMsMin: 100,

  /** TCP to TLS; no message of the wire can say so. */
  tlsHandshakeTimeoutMs: 5_000,
  /** From the connection, or its TLS handshake, to a whole hello. Beyond it: `hello-timeout`. */
  helloTimeoutMs: 5_000,
  /** One key among this many reports, so that a reader starts at most this far back. Beyond it: `order`. */
  reportsPerKeyMax: 60,
  /** An agent that has heard or said nothing for so long pings; no frame within as long again ends the connection. */
  pingAfterMs: 10_000,
  pongTimeoutMs: 10_000,
  /** Three times the longest that an agent keeps quiet. Beyond it: `silent`. */
  silenceMs: 30_000,
  acksPerSecondMax: 5,
  /** Epochs of one agent whose last report the server knows: those last begun. */
  epochsRememberedMax: 8,
  /** A report further ahead of the server's clock is dropped and acked: Prometheus refuses 10 min ahead. */
  futureMsMax: 10_000,
  /** An offset no larger than this is taken for 0: NTP keeps hosts well within it. */
  clockOffsetIgnoredMs: 2_000,
  /** A round trip that took longer says too little about the clock: half of it is the error. */
  roundTripMsMax: 1_000,
  /** Pings that measure again after such a round trip. After the last, the offset is 0. */
  clockMeasurementsMax: 3,
} as const;
