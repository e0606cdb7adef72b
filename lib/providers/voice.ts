import type { CallOptions } from './deadline.ts';

/** A call to a person that says a text. `to` is in E.164. */
export interface VoiceCall {
  to: string;
  say: string;
}

/** What every voice provider looks like to its callers. */
export interface VoiceProvider {
  readonly name: string;
  /**
   * Has the provider call; resolves when it has taken the call, not when somebody answers.
   * Rejects with a ProviderError; after a transient one without a status the phone may ring all the same.
   */
  call(call: VoiceCall, options: CallOptions): Promise<{ providerCallId: string }>;
}
