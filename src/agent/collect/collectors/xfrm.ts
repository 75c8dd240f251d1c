// /proc/net/xfrm_stat: `XfrmInError             	0`, a line a reason for which IPsec dropped packets.
// https://www.kernel.org/doc/html/latest/networking/xfrm_proc.html
import type { Host } from '../proc/host.ts';
import { type CollectorRow, counter, type SampledFamily, type Samples } from './collector.ts';

export const xfrm: CollectorRow = {
  name: 'xfrm',
  enabled: 'on request',
  description: 'packets that IPsec dropped, by reason, from /proc/net/xfrm_stat',
  options: [],
  create: () => ({ collect }),
};

// A kernel that has fewer gives fewer series. Those that came with Linux 6.10 and later node_exporter has not either.
const fields: ReadonlyMap<string, SampledFamily> = new Map([
  dropped('InError', 'in_error', 'Received packets that failed for a reason that has no count of its own.'),
  dropped('InBufferError', 'in_buffer_error', 'Received packets for which there was no memory.'),
  dropped('InHdrError', 'in_hdr_error', 'Received packets with a wrong header.'),
  dropped(
    'InNoStates',
    'in_no_states',
    'Received packets without a security association: wrong SPI, address or protocol.',
  ),
  dropped(
    'InStateProtoError',
    'in_state_proto_error',
    'Received packets that the protocol refused: a wrong key, for example.',
  ),
  dropped('InStateModeError', 'in_state_mode_error', 'Received packets that the mode (tunnel, transport) refused.'),
  dropped('InStateSeqError', 'in_state_seq_error', 'Received packets with a sequence number outside the window.'),
  dropped('InStateExpired', 'in_state_expired', 'Received packets of a security association that has expired.'),
  dropped('InStateMismatch', 'in_state_mismatch', 'Received packets that their security association does not allow.'),
  dropped('InStateInvalid', 'in_state_invalid', 'Received packets of a security association that is not valid.'),
  dropped(
    'InTmplMismatch',
    'in_tmpl_mismatch',
    'Received packets that match a security association, and no template of a policy.',
  ),
  dropped('InNoPols', 'in_no_pols', 'Received packets that match a security association, and no policy.'),
  dropped('InPolBlock', 'in_pol_block', 'Received packets that a policy blocks.'),
  dropped('InPolError', 'in_pol_error', 'Received packets whose policy failed.'),
  dropped('OutError', 'out_error', 'Packets to be sent that failed for a reason that has no count of its own.'),
  dropped('OutBundleGenError', 'out_bundle_gen_error', 'Packets to be sent whose bundle could not be made.'),
  dropped('OutBundleCheckError', 'out_bundle_check_error', 'Packets to be sent whose bundle was not valid.'),
  dropped('OutNoStates', 'out_no_states', 'Packets to be sent without a security association.'),
  dropped('OutStateProtoError', 'out_state_proto_error', 'Packets to be sent that the protocol refused.'),
  dropped('OutStateModeError', 'out_state_mode_error', 'Packets to be sent that the mode (tunnel, transport) refused.'),
  dropped('OutStateSeqError', 'out_state_seq_error', 'Packets to be sent for which no sequence number was left.'),
  dropped('OutStateExpired', 'out_state_expired', 'Packets to be sent whose security association has expired.'),
  dropped('OutPolBlock', 'out_pol_block', 'Packets to be sent that a policy blocks.'),
  dropped('OutPolDead', 'out_pol_dead', 'Packets to be sent whose policy is gone.'),
  dropped('OutPolError', 'out_pol_error', 'Packets to be sent whose policy failed.'),
  dropped('FwdHdrError', 'fwd_hdr_error', 'Packets to be forwarded that may not be.'),
  dropped('OutStateInvalid', 'out_state_invalid', 'Packets to be sent whose security association is not valid.'),
  dropped('AcquireError', 'acquire_error', 'Packets to be sent whose security association was not complete yet.'),
]);

function dropped(field: string, name: string, help: string): [field: string, SampledFamily] {
  return [`Xfrm${field}`, counter(`node_xfrm_${name}_packets_total`, help)];
}

function collect(host: Host, out: Samples): void {
  host.read('proc/net/xfrm_stat').eachLine('a known reason', (line) => {
    const name = line.word('the name of a reason');
    const family = fields.get(name);
    if (family === undefined) return false;
    const count = line.unsigned(name);
    out.sample(family, count);
    return true;
  });
}
