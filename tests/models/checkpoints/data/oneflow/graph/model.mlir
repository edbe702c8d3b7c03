module {
  oneflow.job @Training_0(%arg0: tensor<4x3xf32>) -> tensor<f32> {
    %output = "oneflow.input"(%arg0) {data_type = 2 : i32, device_name = ["@0:0"], device_tag = "cpu", hierarchy = [1], is_dynamic = false, nd_sbp = ["B"], op_name = "_Training_0_input.0.0_2", output_lbns = ["_Training_0_input.0.0_2/out"], scope_symbol_id = 17 : i64, shape = [4 : si64, 3 : si64]} : (tensor<4x3xf32>) -> tensor<4x3xf32>
    %output_0 = "oneflow.variable"() {data_type = 2 : i32, device_name = ["@0:0"], device_tag = "cpu", hierarchy = [1], op_name = "net.weight", output_lbns = ["net.weight/out"], parallel = #sbp.parallel<[] -> [[#sbp.B]]>, scope_symbol_id = 22 : i64, shape = [2 : si64, 3 : si64]} : () -> tensor<2x3xf32>
    %output_1 = "oneflow.variable"() {data_type = 2 : i32, device_name = ["@0:0"], device_tag = "cpu", hierarchy = [1], op_name = "net.bias", output_lbns = ["net.bias/out"], parallel = #sbp.parallel<[] -> [[#sbp.B]]>, scope_symbol_id = 29 : i64, shape = [2 : si64]} : () -> tensor<2xf32>
    %output_2 = "oneflow.variable"() {data_type = 2 : i32, device_name = ["@0:0"], device_tag = "cpu", hierarchy = [1], op_name = "FreeEagerTensor-3", output_lbns = ["FreeEagerTensor-3/out"], parallel = #sbp.parallel<[] -> [[#sbp.B]]>, scope_symbol_id = 17 : i64, shape = [2 : si64], trainable = false} : () -> tensor<2xf32>
    %output_3 = "oneflow.variable"() {data_type = 2 : i32, device_name = ["@0:0"], device_tag = "cpu", hierarchy = [1], op_name = "FreeEagerTensor-8", output_lbns = ["FreeEagerTensor-8/out"], parallel = #sbp.parallel<[] -> [[#sbp.B]]>, scope_symbol_id = 45 : i64, shape = [2 : si64], trainable = false} : () -> tensor<2xf32>
    %0 = "oneflow.matmul"(%output, %output_0) {alpha = 1.000000e+00 : f64, device_name = ["@0:0"], device_tag = "cpu", hierarchy = [1], op_name = "net-matmul-0", scope_symbol_id = 25 : i64, transpose_a = false, transpose_b = true} : (tensor<4x3xf32>, tensor<2x3xf32>) -> tensor<4x2xf32>
    %1 = "oneflow.broadcast_add"(%0, %output_1) {device_name = ["@0:0"], device_tag = "cpu", hierarchy = [1], op_name = "net-broadcast_add-1", scope_symbol_id = 25 : i64} : (tensor<4x2xf32>, tensor<2xf32>) -> tensor<4x2xf32>
    %2 = "oneflow.broadcast_mul"(%1, %output_2) {device_name = ["@0:0"], device_tag = "cpu", hierarchy = [1], op_name = "broadcast_mul-2", scope_symbol_id = 17 : i64} : (tensor<4x2xf32>, tensor<2xf32>) -> tensor<4x2xf32>
    %3 = "oneflow.reduce_sum"(%2) {axis = [0 : si32, 1 : si32], device_name = ["@0:0"], device_tag = "cpu", hierarchy = [1], keepdims = false, op_name = "reduce_sum-4", scope_symbol_id = 17 : i64} : (tensor<4x2xf32>) -> tensor<f32>
    %output_4 = "oneflow.output"(%3) {data_type = 2 : i32, device_name = ["@0:0"], device_tag = "cpu", hierarchy = [1], is_dynamic = false, nd_sbp = ["B"], op_name = "_Training_0_output.0.0_2", output_lbns = ["_Training_0_output.0.0_2/out"], scope_symbol_id = 17 : i64, shape = []} : (tensor<f32>) -> tensor<f32>
    oneflow.return %output_4 : tensor<f32>
  }
}
