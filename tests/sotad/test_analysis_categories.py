"""Categories and canonical names of kernels, by a corpus of names as the backends write them."""

# ruff: noqa: E501

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sotad.analysis.canonical import canonical
from sotad.analysis.categories import OTHER, categorize, rules
from sotad.trace.reader import read

DATA = Path(os.environ.get("SOTAD_DATA", Path(__file__).parents[3] / "shared/data"))
TRACES = sorted((DATA / "h200").rglob("*.trace.json.gz"))

CORPUS = {
    "attention": """
        void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<flash::CollectiveMainloopFwdSm90<2, cute::tuple<cute::C<1>>>>> >(flash::Params)
        void cutlass::device_kernel<flash::FlashAttnFwdCombine<cute::tuple<cute::C<8>, cute::C<128> >, 5, 256> >(Params)
        flash_fwd_splitkv_combine_kernel
        flash_fwd_kernel
        flash_fwd_splitkv_kernel
        void flash::flash_fwd_splitkv_mla_kernel<Flash_fwd_kernel_traits_mla<576, 64, 64, 8>>(Flash_fwd_mla_params)
        void flashinfer::BatchPrefillWithPagedKVCacheKernel<flashinfer::KernelTraits<(flashinfer::MaskMode)1>>(Params)
        void flashinfer::BatchDecodeWithPagedKVCacheKernel<(flashinfer::PosEncodingMode)0, 2u, 4u, 8u>(Params)
        void flashinfer::BatchPrefillWithRaggedKVCacheKernel<T>(Params)
        void flashinfer::PersistentVariableLengthMergeStatesKernel<8u, 16u>(float*)
        void flashinfer::MergeStateKernel<8u>(float*)
        kernel_unified_attention_2d
        kernel_unified_attention
        _fwd_grouped_kernel_stage1
        _fwd_kernel_stage2
        _fwd_kernel
        fmhaSm100aKernel_QkvBfloat16OBfloat16H128PagedKvCausalP64VarSeqQ128Kv128Static
        fmha_v2_flash_attention_fp16_64_128_S_qkv_128_sm90_kernel
        void vllm::paged_attention_v2_kernel<__nv_bfloat16, 128, 16>(float*)
        void vllm::merge_attn_states_kernel<__nv_bfloat16, 128u>(float*)
        void flash::prepare_varlen_num_blocks_kernel<1, true>(int, int)
        kernel_mha
        create_flashinfer_kv_indices_triton
        void tensorrt_llm::kernels::mmha::masked_multihead_attention_kernel<float>(float*)
        void deep_gemm::sm90_fp8_paged_mqa_logits<64u>(float*)
        void cutlass::device_kernel<cutlass::fmha::kernel::Sm100FmhaFwdKernelTmaWarpspecialized<X>>(Params)
        """,
    "linear_attn": """
        chunk_fwd_kernel_o
        chunk_gated_delta_rule_fwd_kernel_h_blockdim64
        chunk_gated_delta_rule_fwd_kkt_solve_kernel
        fused_recurrent_gated_delta_rule_update_fwd_kernel
        fused_recurrent_gated_delta_rule_fwd_kernel
        void selective_scan_fwd_kernel<Selective_Scan_fwd_kernel_traits<128, 16>>(SSMParamsBase)
        _causal_conv1d_fwd_kernel
        _causal_conv1d_update_kernel
        fused_gdn_gating_kernel
        _chunk_scan_fwd_kernel
        _chunk_state_fwd_kernel
        _state_passing_fwd_kernel
        _selective_scan_update_kernel
        fused_qkvzba_split_reshape_cat_kernel
        recompute_w_u_fwd_kernel
        """,
    "gemm": """
        nvjet_tst_128x256_64x4_2x1_v_bz_coopA_TNT
        nvjet_sm90_tst_64x8_64x16_2x1_v_bz_splitK_TNT
        void gemmSN_TN_kernel<float, 128, 16, 2, 4, 4, 4, true>(float)
        void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<cute::tuple<int, int, int, int>, cutlass::gemm::collective::CollectiveMma<X>, cutlass::epilogue::thread::SiLu<float>>>(Params)
        void deep_gemm::fp8_gemm_kernel<4096u, 7168u, 128u>(__nv_bfloat16*)
        deep_gemm::sm90_fp8_gemm_1d2d_impl
        void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>(cublasLt::cublasSplitKParams<float>)
        bmm_E4m3_E4m3E4m3_Fp32_t128x8x256
        void gemv2T_kernel_val<int, int, float, float>(float)
        void gemvx::kernel<int, int, __nv_bfloat16>(float)
        ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_64x3_tn
        sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64
        _w8a8_block_fp8_matmul
        void marlin::Marlin<__nv_bfloat16, 1125899906909960l, 256>(int4 const*)
        Cijk_Alik_Bljk_BBS_BH_Bias_MT128x128x64
        void dsv3_router_gemm_placeholder::fused_a_gemm_kernel<8>(float*)
        triton_tem_fused_mm_3
        void wvSplitK_hf_sml_<__hip_bfloat16, 64>(int)
        """,
    "moe": """
        fused_moe_kernel
        void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<cutlass::gemm::GroupProblemShape<cute::tuple<int, int, int>>>>(Params)
        void vllm::moe::moe_align_block_size_kernel<int>(int*)
        void moe_sum_reduce_kernel<__nv_bfloat16>(float*)
        moe_sum_kernel
        void deep_gemm::sm90_m_grouped_gemm_contiguous<128>(float*)
        count_and_sort_expert_tokens_kernel
        _matmul_ogs_NNT_bf16xbf16xmxfp4_16x256x128x1
        void tensorrt_llm::kernels::cutlass_kernels::expandInputRowsKernel<float>(float*)
        void tensorrt_llm::kernels::cutlass_kernels::finalizeMoeRoutingKernel<float>(float*)
        """,
    "moe_gate": """
        void vllm::moe::topkGating<8, 128, 4, 16, 32>(float const*)
        void topk_gating_softmax<float>(float*)
        void moe_fused_gate_kernel<float>(float*)
        topkGatingSoftmax
        void moe::dev::routing::routingRenormalize::routingIndicesClusterKernel<X>(P)
        void tensorrt_llm::kernels::deepseek_v3_topk_kernel<float>(float*)
        void grouped_topk_fused_kernel<float, float, int>(float*)
        """,
    "norm": """
        void flashinfer::norm::FusedAddRMSNormKernel<8u, __nv_bfloat16>(__nv_bfloat16*, __nv_bfloat16*)
        std::enable_if<(((8)>(0)))&&vllm::_typeConvert<c10::BFloat16>::exists, void>::type vllm::fused_add_rms_norm_kernel<c10::BFloat16, 8, true>(c10::BFloat16*, long)
        void vllm::rms_norm_kernel<c10::BFloat16, 8, 3, true>(c10::BFloat16*)
        triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_0
        triton_per_fused__to_copy_add_mean_mul_pow_rsqrt_4
        triton_red_fused_fused_add_rms_norm_2
        void (anonymous namespace)::fused_qknorm_warp<128l, true, __nv_bfloat16>(P)
        void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>(int)
        _rms_norm_tiled_onepass
        l2norm_fwd_kernel
        void tensorrt_llm::kernels::generalRmsNorm<float>(float*)
        void vllm::rms_norm_static_fp8_quant_kernel<float>(float*)
        """,
    "rope": """
        void vllm::rotary_embedding_kernel<c10::BFloat16, c10::BFloat16, true>(long const*)
        fused_qknorm_rope
        void tensorrt_llm::kernels::fusedQKNormRopeKernel<128, true>(void*)
        void (anonymous namespace)::fused_rope_kernel<true, 128l, true, __nv_bfloat16, long, 16u>(P)
        void flashinfer::BatchQKApplyRotaryPosIdsCosSinCacheKernel<true, 128u>(float*)
        applyBiasRopeUpdateKVCacheV2
        _triton_mrope_forward
        triton_poi_fused_cat_cos_mul_neg_sin_5
        """,
    "conv": """
        void cudnn::cnn::conv2d_grouped_direct_kernel<float>(float*)
        sm80_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64
        """,
    "kv_write": """
        void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16, __nv_bfloat16, (vllm::Fp8KVCacheDataType)0>(float const*)
        reshape_and_cache_kernel_flash
        void set_kv_buffer_kernel(int*)
        store_kv_cache
        void (anonymous namespace)::store_kvcache<2048l, 4, true, long>(P)
        void vllm::concat_and_cache_mla_kernel<__nv_bfloat16>(float*)
        void flashinfer::AppendPagedKVCacheKernel<128u>(float*)
        set_mla_kv_buffer_kernel
        """,
    "quant": """
        void per_token_group_quant_8bit_kernel<c10::BFloat16, c10::Float8_e4m3fn>(float*)
        _per_token_group_quant_fp8
        scaled_fp4_quant
        void vllm::dynamic_per_token_scaled_fp8_quant_kernel_strided<float>(float*)
        void vllm::cvt_fp16_to_fp4<__nv_bfloat16, false>(int)
        _act_quant_kernel
        """,
    "activation": """
        void vllm::act_and_mul_kernel<c10::BFloat16, &(c10::BFloat16 vllm::silu_kernel<c10::BFloat16>(c10::BFloat16 const&))>(float*)
        void flashinfer::activation::act_and_mul_kernel<__nv_bfloat16, &(float silu(float const&))>(float*)
        void (anonymous namespace)::act_and_mul_kernel<__nv_bfloat16, ((anonymous namespace)::ActivationKind)0, true, false>(P)
        triton_poi_fused_mul_silu_slice_1
        void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl(at::TensorIteratorBase&)::{lambda()#1}>(int)
        void vllm::gelu_tanh_kernel<float>(float*)
        """,
    "communication": """
        ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)
        ncclKernel_AllGather_RING_LL_Sum_int8_t(ncclDevComm*)
        void sglang::cross_device_reduce_1stage<__nv_bfloat16, 8>(sglang::RankData*)
        void vllm::cross_device_reduce_2stage<__nv_bfloat16, 8>(vllm::RankData*)
        multimem_all_reduce_kernel
        void flashinfer::trtllm_allreduce_fusion::allreduce_fusion_kernel_oneshot_lamport<(AllReduceFusionPattern)1>(P)
        void deep_ep::intranode::dispatch<8, 768, 8192>(int4*)
        void deep_ep::internode_ll::combine<true, 7168>(void*)
        one_shot_all_reduce_kernel
        triton_poi_fused_all_reduce_3
        """,
    "memory": """
        Memcpy HtoD (Pinned -> Device)
        Memset (Device)
        memcpy128
        memcpy32_post
        """,
    "data_movement": """
        void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<int>, std::array<char*, 1ul> >(int, at::native::FillFunctor<int>, std::array<char*, 1ul>)
        void at::native::(anonymous namespace)::CatArrayBatchedCopy_contig<at::native::OpaqueType<2u>, unsigned int, 2, 128, 1>(float*)
        void at::native::(anonymous namespace)::indexSelectSmallIndex<c10::BFloat16, long, unsigned int, 2, 2, -2>(T)
        void at::native::index_elementwise_kernel<128, 4, at::native::gpu_index_kernel<at::native::index_put_kernel_impl<at::native::OpaqueType<4> >>>(long)
        void at::native::vectorized_gather_kernel<16, long>(char*, char*)
        triton_poi_fused__to_copy_embedding_0
        """,
    "sampling": """
        void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::ArgMaxOps<float>, unsigned int, long, 4, 4> >(T)
        _gumbel_sample_kernel
        void flashinfer::sampling::TopKTopPSamplingFromProbKernel<1024u>(float*)
        void flashinfer::sampling::TopPSamplingFromProbKernel<1024u>(float*)
        void at::native::(anonymous namespace)::cunn_SoftMaxForward<4, float, float, float>(float*)
        void at::native::sbtopk::gatherTopK<float, unsigned int, 2, false>(T)
        apply_token_bitmask_inplace_kernel
        """,
    "metadata": """
        _compute_slot_mappings_kernel
        _gather_block_tables_kernel
        write_req_to_token_pool_triton
        compute_position_kernel
        void (anonymous namespace)::clamp_position_kernel<long>(long*, long const*)
        _fused_metadata_kernel_ps1_no_swa
        """,
    "elementwise": """
        void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctorOnSelf_add<int>, std::array<char*, 2ul> >(T)
        triton_poi_fused_4
        """,
    "reduction": """
        triton_red_fused_3
        void at_cuda_detail::cub::detail::scan::DeviceScanKernel<policy_hub<int>::Policy1000, int const*>(T)
        """,
    OTHER: """
        a_kernel_nobody_knows
        """,
}
CASES = [(name.strip(), category) for category, names in CORPUS.items() for name in names.strip().splitlines()]


@pytest.mark.parametrize(("name", "category"), CASES)
def test_names_of_all_backends_have_their_category(name: str, category: str) -> None:
    """A kernel is what its name says, by whole words and in the order of the rules."""
    assert categorize(name) == category


def test_every_rule_says_why() -> None:
    """Each rule gives its reason, so that a wrong category can be traced to one line of the file."""
    assert all(rule.why and rule.category for rule in (*rules().names, *rules().inductor))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("void f<4, g(int)>(int, g<(a)1>)", "f<4, g(int)>"),
        ("void  set_kv_buffer_kernel(int*)", "set_kv_buffer_kernel"),
        ("std::enable_if<true, void>::type v::norm<8>(long)", "std::enable_if<true, void>::type v::norm<8>"),
        ("kernel at 0x7f11315bc750", "kernel at 0xADDR"),
        ("Memcpy HtoD (Pinned -> Device)", "Memcpy HtoD (Pinned -> Device)"),
        ("unbalanced)", "unbalanced)"),
        ("", ""),
    ],
)
def test_canonical_names_keep_what_tells_kernels_apart(name: str, text: str) -> None:
    """Spaces, addresses, return type and argument list go; template arguments and copy directions stay."""
    assert canonical(name) == text
    assert canonical(canonical(name)) == text


@pytest.mark.skipif(not TRACES, reason="no captured traces here")
@pytest.mark.parametrize("path", TRACES, ids=lambda path: "-".join(path.parts[-5:-1]))
def test_real_traces_leave_little_unknown(path: Path) -> None:
    """At most 2 % of the GPU time of a real trace is of no known category."""
    trace = read(path)
    unknown = np.array([categorize(name) == OTHER for name in trace.names])[trace.kernels.name]
    time = trace.kernels.end - trace.kernels.begin
    assert time[unknown].sum() <= 0.02 * time.sum()
