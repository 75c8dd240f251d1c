/** A map that does not keep its values alive, and forgets the keys of those that are gone. */
export class WeakValues<K, V extends object> {
  readonly #references = new Map<K, WeakRef<V>>();
  #sizeMax = sizeMin;

  /** Keys that are remembered, some of whose values may be gone. */
  get size(): number {
    return this.#references.size;
  }

  get(key: K): V | undefined {
    return this.#references.get(key)?.deref();
  }

  set(key: K, value: V): void {
    if (this.#references.size >= this.#sizeMax) this.#forget();
    this.#references.set(key, new WeakRef(value));
  }

  /** Done when the number has doubled since, so that it costs a key no more than a look or two on average. */
  #forget(): void {
    for (const [key, reference] of this.#references) {
      if (reference.deref() === undefined) this.#references.delete(key);
    }
    this.#sizeMax = Math.max(sizeMin, this.#references.size * 2);
  }
}

const sizeMin = 1024;
