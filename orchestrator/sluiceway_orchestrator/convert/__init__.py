"""Between messages of the contract and the values that the executor works with. Only this package, servicers and the
stages' clients know the generated code.
"""
